"""Prior boxes: their specification and the published presets."""
