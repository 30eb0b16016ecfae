"""XML without what makes XML dangerous: no document type, no entities, nothing external."""

from __future__ import annotations

import re
from typing import Any

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import ParseError, fromstring

from pipeline.errors import BadInputError

__all__ = ["parse_xml"]

DECLARATION = re.compile(rb"<!(?!--|\[CDATA\[)")


def parse_xml(data: bytes, root: bytes = b"") -> Any:
    """Return the root element; `root` names one to put around a file that has none."""
    if DECLARATION.search(data):
        raise BadInputError("the XML declares entities or a document type, which is refused")
    if root:
        data = b"<%b>%b</%b>" % (root, data.removeprefix(b"\xef\xbb\xbf"), root)
    try:
        return fromstring(data, forbid_dtd=True)
    except ParseError as error:
        raise BadInputError(f"the XML is malformed: {error}") from None
    except DefusedXmlException as error:
        raise BadInputError(f"the XML is refused: {error}") from None
    except (ValueError, LookupError) as error:  # an encoding that expat does not know
        raise BadInputError(f"the XML cannot be read: {error}") from None
