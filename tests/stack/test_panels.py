"""What a person sees in each panel, by Grafana's own code, over real answers of Prometheus to the panels' queries.

The texts in `panels/shown/` are the expectation. `python -m tests.stack.show_panels --update` writes them anew; read the
difference before you keep it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from . import build
from .backends import Prometheus
from .needed import built
from .panel_screens import SCREENS, SHOWN, Screen, show, tell

if TYPE_CHECKING:
    from collections.abc import Mapping

# They share the answers.
pytestmark = [pytest.mark.timeout(120), pytest.mark.xdist_group("panels")]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """Return the text of each screen."""
    built(build.PANELS)
    with Prometheus(built("prometheus"), tmp_path_factory.mktemp("panels")) as prometheus:
        tell(prometheus)
        return show(prometheus)


@pytest.mark.parametrize("screen", SCREENS, ids=lambda it: it.name)
def test_what_a_person_sees(screen: Screen, shown: Mapping[str, str]) -> None:
    """Columns, their order, the text of each cell with unit and mapping, and the links are the expected ones."""
    assert shown[screen.name] == screen.file.read_text(encoding="utf-8"), "see `python -m tests.stack.show_panels`"


def test_one_table_each(shown: Mapping[str, str]) -> None:
    """A table panel has one table: Grafana shows only the first of several."""
    assert not [name for name, text in shown.items() if "TABLES" in text]


def test_names_are_for_people(shown: Mapping[str, str]) -> None:
    """No column, value or legend is called by the name of a query, such as `Value #A`."""
    assert not {name: found for name, text in shown.items() if (found := re.findall(r"Value( #\w)?\b.*", text))}


def test_columns_are_for_people(shown: Mapping[str, str]) -> None:
    """No table has a column with the bare name of a label, such as one that a join left over."""
    heads = re.findall(r"^(\|.+\|)\n\| ---", "\n".join(shown.values()), re.MULTILINE)
    assert heads
    assert not [head for head in heads if "_" in head]


def test_no_text_is_left_over() -> None:
    """Each file in `shown/` belongs to a screen."""
    assert {it.name for it in SHOWN.iterdir()} == {it.file.name for it in SCREENS}
