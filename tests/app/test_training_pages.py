"""The pages Training and Runs: empty, with a failed run, with several compared, promoted, deleted; by deep link."""

import shutil
from dataclasses import replace
from datetime import timedelta

import pytest

from lungseg.db.tables import RunRow
from lungseg.errors import NotFoundError
from lungseg.records.run_configs import EvaluateConfig
from lungseg.records.run_states import Failure, Progress, RunKind, RunState
from lungseg.segmentation.card import replace_card
from lungseg.segmentation.card_contents import TrainingRecord
from lungseg.services import datasets, runs, training
from lungseg.services.installation import Installation
from lungseg.training.presets.files import find_preset
from tests.app.test_pages import everything
from tests.data_sets import write_data_set
from tests.installations import installation_of
from tests.narrowing import of_type
from tests.networks import save_network
from tests.presets import as_toml
from tests.run_rows import NOW, keep_epochs, keep_run, keep_scores, score_of, training_run, write_pictures

LOW = (0.2, 0.4, 0.5, 0.6, 0.3, 0.7)
HIGH = (0.31, 0.5, 0.61, 0.7, 0.41, 0.8)


@pytest.fixture
def visit(open_page):
    """Open the page Training or Runs, with runs in its address."""

    def open_at(name, *run_ids):
        page = open_page()
        if run_ids:
            page.query_params["run"] = list(run_ids)
        page.switch_page(f"../../pages/{name}.py").run()
        assert not page.exception
        return page

    return open_at


def keep(database, run, *, epochs=30, best=0.6, dice=()):
    with database.begin() as session:
        keep_run(session, run)
        if epochs:
            keep_epochs(session, [run.id], epochs, best=best)
        if dice:
            keep_scores(session, run.id, [score_of(f"lung_{n:03d}", value) for n, value in enumerate(dice)])
    return run


def test_empty_installation_says_what_to_do_first(visit):
    assert "There is no training run yet. Enter the folder of a data set" in everything(visit("training"))
    assert "There is no run yet. Start one on the page Training" in everything(visit("runs"))


def test_run_is_ordered_with_what_the_form_says(visit, environment, database, tmp_path):
    assert visit("training").button(key="training_start").disabled
    write_data_set(tmp_path / "lungs")
    datasets.register(Installation(environment, database), tmp_path / "lungs")
    page = visit("training")
    page.selectbox(key="training_preset").set_value("baseline").run()
    page.number_input(key="training_epochs_baseline").set_value(2)
    page.number_input(key="training_folds").set_value(3).run()
    page.number_input(key="training_fold_3").set_value(2)
    page.text_input(key="training_name").set_value("quick look").run()
    assert "of memory." in everything(page)
    page.button(key="training_start").click().run()
    assert not page.exception
    (run,) = training.recent_runs(Installation(environment, database))
    asked = {key: getattr(run.config, key) for key in ("preset", "epochs", "batch", "folds", "fold", "seed")}
    assert asked == {"preset": "baseline", "epochs": 2, "batch": 8, "folds": 3, "fold": 1, "seed": 0}
    assert (run.name, run.dataset, run.state) == ("quick look", str(tmp_path / "lungs"), RunState.QUEUED)
    assert page.query_params["run"] == run.id
    assert "Waiting for the worker" in everything(page)
    assert page.button(key="training_start").label == "Queue training (1 ahead)"


def test_preset_file_that_is_dropped_is_chosen_and_stands_in_the_run(visit, environment, database, tmp_path):
    write_data_set(tmp_path / "lungs")
    datasets.register(Installation(environment, database), tmp_path / "lungs")
    baseline = find_preset("baseline")
    mine = replace(baseline, name="mine", optimisation=replace(baseline.optimisation, epochs=7, learning_rate=3e-4))
    page = visit("training")
    page.file_uploader[0].set_value(("worse.toml", b"kind = 7", "application/toml")).run()
    assert "The preset file worse.toml can" in everything(page)
    assert "be used (kind: it has to be one of slices, scenes)." in everything(page)
    assert page.selectbox(key="training_preset").options == ["baseline", "neighbours", "scenes"]
    page.file_uploader[0].set_value(("mine.toml", as_toml(mine).encode(), "application/toml")).run()
    assert "worse.toml" not in everything(page)
    assert page.selectbox(key="training_preset").value == "mine"
    assert page.number_input(key="training_epochs_mine").value == 7
    page.button(key="training_start").click().run()
    assert not page.exception
    (run,) = training.recent_runs(Installation(environment, database))
    assert training.config_of(Installation(environment, database), run).resolve() == mine


def test_data_set_that_is_gone_is_refused_before_the_start(visit, environment, database, tmp_path):
    write_data_set(tmp_path / "lungs")
    datasets.register(Installation(environment, database), tmp_path / "lungs")
    shutil.rmtree(tmp_path / "lungs")
    page = visit("training")
    assert '<div class="lungseg-failure"><b>There is no folder' in everything(page)
    assert page.button(key="training_start").disabled


def test_running_run_is_watched(visit, environment, database):
    run = training_run(
        "fold 1", state=RunState.RUNNING, progress=Progress("training", 9, 30, 125.0), started_at=NOW, heartbeat_at=NOW,
        warnings=("Out of memory at batch 8: went on with 4.",),
    )  # fmt: skip
    keep(database, run, epochs=9)
    write_pictures(environment.runs / run.id / "examples", 4)
    page = visit("training")
    text = everything(page)
    assert "fold 1" in text
    assert "9 <em>of 30</em>" in text
    assert "2 min 05 s" in text
    assert "Out of memory at batch 8: went on with 4." in text
    assert everything(page).count('alt="Slice of case ') == 4
    assert len(page.get("plotly_chart")) == 1
    page.button(key="training_stop").click().run()
    assert runs.get_run(Installation(environment, database), run.id).stop_requested
    assert page.button(key="training_stop").disabled


def test_failed_run_says_why_and_is_resumed(visit, database):
    failure = Failure("data.unusable", "The loss became nan in epoch 8.", "Lower the learning rate.")
    run = keep(database, training_run(state=RunState.FAILED, failure=failure, finished_at=NOW), epochs=7)
    for name in ("training", "runs"):
        text = everything(visit(name, run.id))
        assert "<b>The loss became nan in epoch 8.</b> Lower the learning rate. <code>data.unusable</code>" in text


def test_names_are_shown_as_they_are(visit, database):
    run = keep(database, training_run('<b>"bold"</b> *x*', dataset="/data/<i>set</i>"))
    for name in ("training", "runs"):
        text = everything(visit(name, run.id))
        assert "&lt;b&gt;&#34;bold&#34;&lt;/b&gt; *x*" in text
        assert "<b>&#34;bold" not in text.replace("&lt;b&gt;", "")


def test_unknown_run(visit, database):
    keep(database, training_run())
    assert "There is no training run at this address." in everything(visit("training", "f" * 32))
    assert "A chosen run does not exist." in everything(visit("runs", "f" * 32))


def test_newest_run_is_shown_without_a_deep_link_and_a_running_one_first(visit, database):
    running = keep(database, training_run("older, running", state=RunState.RUNNING, queued_at=NOW - timedelta(days=1)))
    keep(database, training_run("newest"))
    assert '<div class="lungseg-title">older, running</div>' in everything(visit("training"))
    assert '<div class="lungseg-title">older, running</div>' in everything(visit("training", running.id))


def table(page):
    return page.dataframe(key="runs_table").value


def test_table_lists_training_and_evaluation_newest_first(visit, database):
    for number in range(3):
        keep(database, training_run(f"run {number}", queued_at=NOW + timedelta(hours=number)), best=0.5)
    shown = table(visit("runs"))
    assert list(shown["Run"]) == ["run 2", "run 1", "run 0"]
    assert list(shown["Epochs"]) == [30, 30, 30]
    assert shown["Validation"].between(0.45, 0.6).all()


def test_filters_find_by_words_state_and_tag(visit, database):
    keep(database, training_run("alpha", notes="vessels at the hilum", tags=("cv",)))
    keep(database, training_run("beta", state=RunState.FAILED, failure=Failure("x", "y.", "z."), tags=("cv", "ema")))
    page = visit("runs")
    page.text_input(key="runs_text").set_value("HILUM alpha").run()
    assert list(table(page)["Run"]) == ["alpha"]
    page.text_input(key="runs_text").set_value("").run()
    page.multiselect(key="runs_states").set_value([RunState.FAILED]).run()
    assert list(table(page)["Run"]) == ["beta"]
    page.multiselect(key="runs_states").set_value([]).run()
    page.multiselect(key="runs_tags").set_value(["cv", "ema"]).run()
    assert list(table(page)["Run"]) == ["beta"]
    page.text_input(key="runs_text").set_value("nothing like it").run()
    assert not page.exception
    assert "None of 2 runs matches these filters." in everything(page)


def test_name_tags_and_notes_are_kept_as_they_are_typed(visit, database):
    run = keep(database, training_run("before"))
    page = visit("runs", run.id)
    page.text_input(key=f"runs_name_{run.id}").set_value("after").run()
    page.multiselect(key=f"runs_tags_{run.id}").set_value(["new tag"]).run()
    page.text_area(key=f"runs_notes_{run.id}").set_value("half of it is noise").run()
    assert not page.exception
    kept = runs.get_run(installation_of(database), run.id)
    assert (kept.name, kept.tags, kept.notes) == ("after", ("new tag",), "half of it is noise")


def test_one_run_shows_its_cases_worst_first(visit, database):
    run = keep(database, training_run(), dice=LOW)
    page = visit("runs", run.id)
    cases = page.dataframe[1].value
    assert list(cases["Dice"]) == sorted(LOW)
    assert cases["Case"][0] == "lung_000"
    assert "0.450" in everything(page)


def test_two_runs_compared(visit, database):
    first = keep(database, training_run("low", seed=1), dice=LOW)
    second = keep(database, training_run("high", seed=2), dice=HIGH)
    page = visit("runs", first.id, second.id)
    text = everything(page)
    assert '<b class="better">high is better</b> than low: <b>+0.105</b> Dice on 6 cases' in text
    assert "<td>seed</td><td>1</td><td>2</td>" in text
    assert "<td>preset</td>" not in text
    assert len(page.get("plotly_chart")) == 2
    noise = everything(visit("runs", first.id, keep(database, training_run("same", seed=1), dice=LOW[::-1]).id))
    assert "<b>Inside the noise.</b>" in noise


def test_runs_without_scores_are_compared_by_their_curves(visit, database):
    ids = [keep(database, training_run(str(number)), epochs=5).id for number in range(2)]
    page = visit("runs", *ids)
    assert "Fewer than two of these runs have scores" in everything(page)
    assert len(page.get("plotly_chart")) == 1


def test_several_runs_let_two_be_chosen(visit, database):
    kept = [keep(database, training_run(str(number)), dice=dice) for number, dice in enumerate((LOW, LOW, HIGH))]
    page = visit("runs", *(run.id for run in kept))
    second = next(box for box in page.selectbox if box.label == "To")
    assert "Inside the noise" in everything(page)
    second.set_value(kept[2].id).run()
    assert "2 is better" in everything(page)


def test_promotion_says_how_it_fares_and_asks_for_a_reason(visit, environment, database, tmp_path, monkeypatch):
    monkeypatch.setenv("LUNGSEG_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("LUNGSEG_CHECKPOINT", "good")
    for name, dice, folder in (("good", HIGH, tmp_path / "models"), ("bad", LOW, None)):
        run = training_run(name, checkpoint=name)
        card = save_network(folder or environment.runs / run.id, name, logit=1.0 + len(name))
        keep(database, replace(run, checkpoint_sha256=card.sha256), dice=dice)
    page = visit("runs", run.id)
    page.button(key="runs_promote").click().run()
    text = everything(page)
    assert "<b>A reason is needed.</b> bad is worse than good by 0.105 Dice" in text
    assert "LUNGSEG_CHECKPOINT names good, which stays in use until the setting is removed." in text
    assert page.button(key="runs_promote_now").label == "Promote all the same"


def test_checkpoint_in_use_is_scored_on_the_cases_held_out(visit, environment, database, tmp_path, monkeypatch):
    monkeypatch.setenv("LUNGSEG_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("LUNGSEG_CHECKPOINT", "present")
    save_network(tmp_path / "models", "present")
    write_data_set(tmp_path / "lungs")
    run = training_run("new", checkpoint="new", dataset=str(tmp_path / "lungs"))
    card = save_network(environment.runs / run.id, "new", logit=1.0)
    held_out = replace(card, training=TrainingRecord(held_out_cases=("lung_002",)))
    replace_card(environment.runs / run.id / "new.safetensors", held_out)
    keep(database, replace(run, checkpoint_sha256=card.sha256), dice=LOW)
    page = visit("runs", run.id)
    page.button(key="runs_promote").click().run()
    assert "No case was scored with both new and present, which is in use" in everything(page)
    assert page.button(key="runs_score_incumbent").label == "Score present on the same cases"
    assert "runs_promote_now" not in {button.key for button in page.button}
    queued = training.queue_incumbent(
        Installation(replace(environment, models=tmp_path / "models", checkpoint="present"), database), run.id
    )
    assert (queued.kind, queued.checkpoint) == (RunKind.EVALUATE, "present")
    assert of_type(EvaluateConfig, queued.config).cases == ("lung_002",)


def test_what_was_deleted_in_another_window_is_said_and_the_page_goes_on(visit, environment, database):
    """Every button and field of a run that is gone by the time of the click."""
    actions = {
        "training": (lambda page, run: page.button(key="training_resume").click(),),
        "runs": (
            lambda page, run: page.text_input(key=f"runs_name_{run.id}").set_value("other"),
            lambda page, run: page.multiselect(key=f"runs_tags_{run.id}").set_value(["new"]),
            lambda page, run: page.text_area(key=f"runs_notes_{run.id}").set_value("late"),
            lambda page, run: page.button(key="runs_delete").click(),
        ),
    }
    for name, acts in actions.items():
        for act in acts:
            run = keep(database, training_run(state=RunState.CANCELLED, finished_at=NOW))
            (environment.runs / run.id).mkdir(parents=True)
            page = visit(name, run.id)
            training.delete_run(Installation(environment, database), run.id)
            act(page, run).run()
            assert not page.exception
            text = everything(page)
            assert "deleted meanwhile" in text or "may have been deleted" in text
    run = keep(database, training_run(state=RunState.RUNNING, started_at=NOW, heartbeat_at=NOW))
    page = visit("training", run.id)
    with database.begin() as session:
        session.delete(session.get(RunRow, run.id))
    page.button(key="training_stop").click().run()
    assert not page.exception
    assert "may have been deleted" in everything(page)


def test_runs_of_one_name_are_told_apart(visit, database):
    twins = [keep(database, training_run("twin", seed=seed), dice=dice) for seed, dice in ((1, LOW), (2, HIGH))]
    names = [f"twin · {run.id[:8]}" for run in twins]
    assert set(table(visit("runs"))["Run"]) == set(names)
    text = everything(visit("runs", *(run.id for run in twins)))
    assert f"{names[1]} is better</b> than {names[0]}" in text
    assert names[0] in [link.proto.label.replace("\\", "") for link in visit("training").get("page_link")]


def test_folders_of_one_name_are_told_apart(visit, database):
    for folder in ("/one/lungs", "/two/lungs", "/data/Task06_Lung"):
        keep(database, training_run(folder, dataset=folder), epochs=0)
    page = visit("runs")
    assert set(table(page)["Data set"]) == {"one/lungs", "two/lungs", "Task06_Lung"}
    page.multiselect(key="runs_folders").set_value(["/two/lungs"]).run()
    assert list(table(page)["Run"]) == ["/two/lungs"]


def test_removed_data_set_is_not_replaced_by_another(visit, environment, database, tmp_path):
    for name in ("a", "b"):
        write_data_set(tmp_path / name)
        datasets.register(Installation(environment, database), tmp_path / name)
    first, second = datasets.list_data_sets(Installation(environment, database))
    page = visit("training")
    assert page.selectbox(key="training_data").value == first.id
    datasets.forget(Installation(environment, database), first.id)
    page.number_input(key="training_epochs_baseline").set_value(2).run()
    assert "The data set was removed meanwhile." in everything(page)
    assert page.button(key="training_start").disabled
    page.selectbox(key="training_data").set_value(second.id).run()
    assert not page.button(key="training_start").disabled


def test_split_of_a_run_does_not_hang_on_its_seed(visit, environment, database, tmp_path):
    write_data_set(tmp_path / "lungs")
    datasets.register(Installation(environment, database), tmp_path / "lungs")
    page = visit("training")
    page.number_input(key="training_seed").set_value(7).run()
    page.button(key="training_start").click().run()
    (run,) = training.recent_runs(Installation(environment, database))
    order = training.config_of(Installation(environment, database), run)
    assert (order.seed, order.effective_split_seed) == (7, 0)
    assert "held out: a fifth of the patients, drawn by seed 0" in everything(page)


def test_only_runs_of_other_kinds_are_no_empty_table(visit, database):
    keep(database, training_run(kind=RunKind.SEGMENT), epochs=0)
    page = visit("runs")
    assert "No run of this kind yet. Start one on the page Training. 1 run of other kinds hidden." in everything(page)
    assert not page.dataframe


def test_runs_are_deleted_with_their_files(environment, database):
    run = keep(database, training_run())
    write_pictures(environment.runs / run.id / "examples", 1)
    training.delete_run(Installation(environment, database), run.id)
    assert not (environment.runs / run.id).exists()
    with pytest.raises(NotFoundError):
        runs.get_run(Installation(environment, database), run.id)
    assert training.list_runs(Installation(environment, database)) == ()
