"""Other methods beside MATA in a study: measured on the test items, shown, and no hypotheses of it."""

from __future__ import annotations

import pytest

import mata_interp as mi
from mata_interp.errors import InterventionError
from mata_interp.interventions.catalogue import Aad, InstABoost
from tests.reporting.small import write_benchmark, write_model

pytestmark = pytest.mark.filterwarnings("ignore::mata_interp.errors.MataWarning")


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    lalm = mi.LALM.from_pretrained(write_model(folder / "model"))
    return lalm, mi.load_benchmark(write_benchmark(folder / "bench", clips=4)), folder


def test_methods_beside_mata(parts):
    lalm, items, folder = parts
    methods = {"boost": InstABoost([1, 2], queries="last"), "contrast": Aad(0.5)}
    settings = {"layers": [1], "alphas": (0.5, 1.0), "progress": False}
    study = mi.study(lalm, items, folder / "with", methods=methods, **settings)
    alone = mi.study(lalm, items, folder / "without", **settings)
    assert [row.to_dict() for row in study.effects] == [row.to_dict() for row in alone.effects]
    assert {name: study.roles[name] for name in methods} == {"boost": "other", "contrast": "other"}
    tested = study.records[study.records["condition"] == "boost"].set_index("item")
    assert set(tested.index) == set(study.records.loc[study.records["condition"] == "mata", "item"])
    page = mi.report(folder / "with").read_text("utf-8")
    assert 'data-method="boost"' in page
    assert 'data-method="contrast"' in page
    assert 'data-method="boost"' not in mi.report(folder / "without").read_text("utf-8")


def test_the_forecast_counts_methods(parts, capsys):
    lalm, items, folder = parts
    methods = {"boost": InstABoost([1, 2], queries="last"), "contrast": Aad(0.5)}
    settings = {"layers": [1], "alphas": (0.5, 1.0), "progress": False}

    def measuring(out=None, **more):
        stages = mi.forecast_study(lalm, items, out, **settings, **more).stages
        return next(stage for stage in stages if stage.name == "measuring")

    plain, more = measuring(), measuring(methods=methods)
    counts = [int(stage.work.split()[0]) for stage in (plain, more)]
    assert counts[1] == counts[0] + len(methods)
    mi.study(lalm, items, folder / "printed", methods=methods, **{**settings, "progress": True})
    assert f"{counts[1]} conditions" in capsys.readouterr().err
    done = measuring(folder / "printed", methods=methods)
    assert done.done == done.batches
    assert done.seconds is None
    with pytest.raises(InterventionError, match="'mata' of its own"):
        measuring(methods={"mata": Aad()})


def test_names_and_layers_are_checked_first(parts):
    lalm, items, folder = parts
    with pytest.raises(InterventionError, match="'mata' of its own"):
        mi.study(lalm, items, folder / "new", methods={"mata": Aad()}, progress=False)
    with pytest.raises(InterventionError, match="No attention in layer 9"):
        mi.study(lalm, items, folder / "new", methods={"far": InstABoost([9])}, progress=False)
    assert not (folder / "new").exists()
