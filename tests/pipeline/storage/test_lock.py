"""One writer, many readers, and a dead holder holds nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import FacadeError
from pipeline.storage.lock import locked


def test_a_second_writer_is_told_who_has_it(tmp_path: Path) -> None:
    told = pytest.raises(FacadeError, match=r"a is in use by process \d+ on .* since .*; wait")
    with locked(tmp_path / "a"), told, locked(tmp_path / "a"):
        pass


def test_readers_share_and_keep_a_writer_out(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    told = pytest.raises(FacadeError, match="in is in use")
    reads = [tmp_path / "in"]
    with locked(tmp_path / "a", reads), locked(tmp_path / "b", reads), told, locked(tmp_path / "in"):
        pass
    with locked(tmp_path / "in"), pytest.raises(FacadeError), locked(tmp_path / "c", reads=[tmp_path / "in"]):
        pass


def test_a_killed_holder_lets_go(tmp_path: Path) -> None:
    program = "import sys, time; from pathlib import Path; from pipeline.storage.lock import locked\n"
    program += "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "a")], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(FacadeError, match=f"process {holder.pid}"), locked(tmp_path / "a"):
            pass
        holder.kill()
    with locked(tmp_path / "a"):
        pass


def test_a_folder_below_a_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(FacadeError, match=r"cannot write .*: Not a directory; check"),
        locked(tmp_path / "file/work/index"),
    ):
        pass
