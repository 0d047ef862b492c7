"""The page is written from records: what has none is missing, and no verdict is without cells."""

from itertools import product

import pytest

from benchmarks.evidence import plots, records, report
from benchmarks.evidence.design import FACTORS, REAL, SMALL, every_cell
from tests.unit.benchmarks.evidence.test_effects import grid, make


def on_all_levels(found):
    for record in found:
        record.right.update({f"arithmetic/{level}": record.right["arithmetic/easy"] for level in ("medium", "hardest")})
    return found


def test_without_records_nothing_is_claimed():
    page = report.render([], [], None)
    assert "No effect is decided" in page and page.count("No cell of this setting is done") == len(
        SMALL.settings + REAL.settings
    )
    assert not any(f"**{word}**" in page for word in ("higher", "lower"))


def test_the_first_screen_has_what_is_decided_with_its_cells():
    found = on_all_levels(grid(lambda gate, _: 0.9 if gate == "always" else 0.5))
    page = report.render(found, [], "evidence.png")
    screen = page.partition("## How")[0]
    assert "| main | gate: always against acc0 |" in screen and "evidence.png" in screen
    assert "gate: acc25 against acc0" not in screen and "gate: acc25 against acc0" in page
    assert all(f"`{record.cell}`" in page for record in found)  # no cell is left out


def test_one_seed_of_one_cell_decides_nothing():
    found = on_all_levels([make(0.9), make(0.1, gate="always")])
    page = report.render(found, [], None)
    assert "No effect is decided" in page and "| gate: always against acc0 | -" in page


def test_the_image_is_drawn_where_there_are_cells(tmp_path):
    assert not plots.placements([], ["main"], tmp_path / "none.png")
    found = on_all_levels(grid(lambda *_: 0.5, seeds=(1,)))
    assert plots.placements(found, ["main", "mixed_scarce"], tmp_path / "some.png")
    assert (tmp_path / "some.png").stat().st_size > 1000


def test_the_kept_page_is_the_one_that_the_kept_records_give(monkeypatch):
    monkeypatch.setattr("sys.argv", ["report", "--check"])
    assert report.main() == 0, "python -m benchmarks.evidence.report writes it"


def test_every_kept_record_can_be_read_and_is_a_cell_of_the_study():

    for study in (SMALL, REAL):
        found = records.read_all(records.FOLDER, study.name)
        known = {cell.name for cell in every_cell(study, {record.seed for record in found} | {1})}
        assert {record.cell for record in found} <= known


@pytest.mark.parametrize("factor", FACTORS)
def test_every_level_is_explained(factor):
    page = report.render([], [], None)
    assert all(f"`{level}`" in page for _, level in product([factor], FACTORS[factor]))
