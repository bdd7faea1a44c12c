"""`otel-progress assets`: what comes with the package, copied out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from otel_progress.cli import assets, main

ROOT = Path(__file__).parents[3]


def test_all_is_copied(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Documentation, dashboards, rules and configurations are there, and it says that the runbook's address is missing."""
    assert main(["assets", str(tmp_path / "new" / "folder")]) == 0
    for part in assets.PARTS:
        assert (tmp_path / "new" / "folder" / part).exists()
    said = capsys.readouterr().out
    assert "--runbook URL, --grafana URL, --alertmanager URL" in said
    links = (tmp_path / "new" / "folder" / assets.LINKS).read_text(encoding="utf-8")
    assert links == (ROOT / assets.LINKS).read_text(encoding="utf-8")
    assert all(address in links for address in assets.UNSET.values())


@pytest.mark.parametrize("page", ["grafana/README.md", "grafana/alerts/README.md"])
def test_steps_to_install_need_only_what_is_copied(page: str) -> None:
    """A step names no file that only a checkout has, unless it says so, and whoever loads the rules also loads the links."""
    install = (ROOT / page).read_text(encoding="utf-8").split("## Install\n")[1].split("\n## ")[0]
    for line in install.splitlines():
        if "checkout" not in line:
            assert "make " not in line
            for word in re.findall(r"`([\w./-]+)`", line):
                for path in ((ROOT / word), (ROOT / page).parent / word):
                    part = path.relative_to(ROOT)
                    copied = any(part.is_relative_to(it) or Path(it).is_relative_to(part) for it in assets.PARTS)
                    assert copied or not path.exists(), word
        if "`rules.yaml`" in line or "alerts/rules.yaml`" in line:
            assert "links.yaml`" in line


def test_addresses_are_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each option sets one address for the links of all alerts, and its placeholder is gone."""
    addresses = ["--runbook", "https://wiki.example/runbook", "--grafana", "https://g.example/"]
    assert main(["assets", str(tmp_path), *addresses]) == 0
    links = (tmp_path / assets.LINKS).read_text(encoding="utf-8")
    assert "runbook: https://wiki.example/runbook\n" in links
    assert "grafana: https://g.example\n" in links
    assert assets.UNSET["runbook"] not in links
    said = capsys.readouterr().out
    assert "--alertmanager URL" in said
    assert "--runbook" not in said


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is there is kept, and nothing else is written, unless --force is given."""
    mine = tmp_path / "compose.yaml"
    mine.write_text("mine", encoding="utf-8")
    assert main(["assets", str(tmp_path)]) == 1
    assert str(mine) in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["compose.yaml"]
    assert main(["assets", str(tmp_path), "--force"]) == 0
    assert mine.read_text(encoding="utf-8") != "mine"


def test_folder_that_can_not_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file in the folder's place is told by its name."""
    (tmp_path / "file").touch()
    assert main(["assets", str(tmp_path / "file" / "folder")]) == 1
    assert "file" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["wiki/runbook", "https://wiki.example#x"])
def test_address_that_is_none(tmp_path: Path, address: str) -> None:
    """An address that no anchor can follow is refused before anything is written."""
    with pytest.raises(SystemExit, match="2"):
        main(["assets", str(tmp_path / "new"), "--runbook", address])
    assert not (tmp_path / "new").exists()


def test_wheel_takes_every_part() -> None:
    """Each part is put into the wheel, under the folder where the command looks for it."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for part in assets.PARTS:
        assert f'"{part}" = "otel_progress/assets/{part}"' in text
