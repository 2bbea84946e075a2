"""Loop and optimisation: what is learned, what is kept, how it ends, and that it goes on as if never interrupted."""

import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from lungseg.errors import DataSetError, DivergedError, OutOfMemoryError, TrainingError
from lungseg.segmentation.card import NetworkShape
from lungseg.segmentation.unet import UNet
from lungseg.training.batches import Batch
from lungseg.training.config import TrainingCallbacks
from lungseg.training.loop import EtaTracker, ValidationResult, train_epochs
from lungseg.training.optimisation import Optimisation, decay_at, loss_of, rate_at
from lungseg.training.presets import OptimisationConfig
from lungseg.workclock import WorkClock
from tests.narrowing import existing

CPU = torch.device("cpu")
STEPS = 5
CONFIG = OptimisationConfig(epochs=4, batch=3, learning_rate=0.02, decay="cosine", dice=1.0, ema=0.5, amp=False)
WITH_DICE = OptimisationConfig(epochs=1, batch=1, dice=1.0, dice_smoothing_px=8.0)


def bright_squares(epoch, poison=0.0):
    generator = torch.Generator().manual_seed(epoch)
    for _ in range(STEPS):
        tumour = torch.zeros(3, 1, 16, 24)
        tumour[:, :, 4:10, 5:15] = 1
        noise = torch.randn(3, 1, 16, 24, generator=generator) * 0.1
        yield Batch(tumour + noise + poison, tumour)


class Witness:
    def __init__(self, stop_after=math.inf):
        self.steps, self.epochs, self.networks, self.states, self.notices = [], [], [], [], []
        self.stop_after = stop_after

    @property
    def callbacks(self):
        return TrainingCallbacks(
            on_progress=lambda progress: self.steps.append(progress.done),
            on_notice=self.notices.append,
            should_stop=lambda: len(self.steps) >= self.stop_after,
        )

    @property
    def clock(self):
        return WorkClock(self.callbacks.should_stop)

    def on_epoch(self, epoch, optimisation):
        self.epochs.append(epoch.report)
        self.networks.append(optimisation.eval_network)
        if epoch.is_complete:
            self.states.append(copy.deepcopy(optimisation.state()))


def no_better(_network):
    return ValidationResult(rank=(0.0,))


def fresh(config=CONFIG, kind=UNet):
    torch.manual_seed(0)
    network = kind(NetworkShape(width=4, depth=2, channels=1))
    return Optimisation(network, config, device=CPU, steps=config.epochs * STEPS)


def run(witness, batches=bright_squares, validate=no_better, optimisation=None, config=CONFIG):
    optimisation = optimisation or fresh(config)
    clock = witness.clock
    for epoch in train_epochs(
        optimisation, batches=batches, validate=validate, callbacks=witness.callbacks, clock=clock
    ):
        witness.on_epoch(epoch, optimisation)
    return optimisation


def weights_of(optimisation):
    return {name: tensor for name, tensor in optimisation.state().tensors.items() if name.startswith("network.")}


def test_time_that_the_clock_leaves_out_counts_nowhere():
    class Clock(WorkClock):
        """Grows by a second with each step, whatever the real one says."""

        def now(self):
            return float(len(witness.steps))

    class Aside(Witness):
        @property
        def clock(self):
            return Clock(self.callbacks.should_stop)

    witness = Aside()
    optimisation = run(witness)
    assert [report.seconds for report in witness.epochs] == [5.0] * 4
    assert [report.slices_per_s for report in witness.epochs] == [3.0] * 4
    assert optimisation.progress.seconds == 20.0


def test_loss_falls_and_everyone_is_told():
    witness = Witness()
    run(witness)
    assert witness.steps == list(range(1, 21))
    assert [report.epoch for report in witness.epochs] == [1, 2, 3, 4]
    assert witness.epochs[-1].train_loss < 0.8 * witness.epochs[0].train_loss
    assert witness.epochs[-1].learning_rate == pytest.approx(0.0, abs=1e-9)
    assert witness.epochs[-1].slices_per_s > 0
    assert witness.epochs[-1].memory_mb > 10
    assert len(witness.states) == 4


def test_same_seed_gives_the_same_weights():
    first, second = (weights_of(run(Witness())) for _ in range(2))
    assert all(first[name].equal(second[name]) for name in first)


def test_best_epochs_are_told_apart():
    ranks = iter([(0.2, -1.0), (0.2, -0.5), (0.2, -0.6), (0.6, -9.0)])
    witness = Witness()
    run(witness, validate=lambda _: ValidationResult(rank=next(ranks)))
    assert [report.is_best for report in witness.epochs] == [True, True, False, True]


def test_kept_is_the_moving_average_or_the_network_itself():
    for ema in (0.5, None):
        witness = Witness()
        optimisation = run(witness, config=replace(CONFIG, ema=ema))
        is_network = witness.networks[0].head.weight.equal(optimisation.state().tensors["network.head.weight"])
        assert is_network == (ema is None)


def test_stop_returns_after_the_step():
    witness = Witness(stop_after=7)
    run(witness)
    assert len(witness.steps) == 7
    assert [report.epoch for report in witness.epochs] == [1]
    assert len(witness.states) == 1


def test_stop_in_the_first_epoch_keeps_what_there_is_but_no_state():
    witness = Witness(stop_after=2)
    run(witness)
    assert [report.epoch for report in witness.epochs] == [1]
    assert witness.epochs[0].is_best
    assert witness.states == []


def test_stop_in_validation_leaves_the_epoch_before():
    verdicts = iter([ValidationResult(rank=(0.5,)), None])
    witness = Witness()
    optimisation = run(witness, validate=lambda _: next(verdicts))
    assert [report.epoch for report in witness.epochs] == [1]
    assert (optimisation.progress.epoch, optimisation.progress.best_epoch, len(witness.states)) == (1, 1, 1)


def test_stop_in_the_first_validation_keeps_what_there_is_but_no_state():
    witness = Witness()
    run(witness, validate=lambda _: None)
    (report,) = witness.epochs
    assert (report.epoch, report.is_best, report.mean_dice, report.validation_loss) == (1, True, None, None)
    assert witness.states == []


def test_moving_average_soon_forgets_where_it_began():
    assert [decay_at(updates, 0.99) for updates in (0, 8, 90, 10_000)] == [0.1, 0.5, 0.91, 0.99]


def test_training_ends_early_when_nothing_gets_better():
    witness = Witness()
    run(witness, config=replace(CONFIG, epochs=50, patience=3))
    assert len(witness.epochs) == 4
    assert "No epoch since 1 was better" in witness.notices[0]


def test_run_that_ended_early_goes_on_to_no_further_epoch():
    config = replace(CONFIG, epochs=50, patience=3)
    before, after = Witness(), Witness()
    run(before, config=config)
    optimisation = fresh(config)
    optimisation.restore(before.states[-1])
    run(after, optimisation=optimisation)
    assert (len(before.epochs), after.epochs) == (4, [])
    assert "No epoch since 1 was better" in after.notices[0]


def test_loss_that_is_not_finite_ends_training():
    with pytest.raises(DivergedError, match="loss became nan in step 1"):
        run(Witness(), batches=lambda epoch: bright_squares(epoch, poison=math.nan))


@pytest.mark.parametrize("optimiser", ["adam", "adamw"])
@pytest.mark.parametrize("ema", [0.5, None])
def test_optimisation_goes_on_as_if_never_interrupted(optimiser, ema):
    config = replace(CONFIG, optimiser=optimiser, ema=ema)
    uninterrupted = Witness()
    expected = weights_of(run(uninterrupted, config=config))
    resumed = Witness()
    optimisation = fresh(config)
    optimisation.restore(uninterrupted.states[1])
    torch.rand(5)  # whatever happened meanwhile
    actual = weights_of(run(resumed, optimisation=optimisation))
    assert [report.epoch for report in resumed.epochs] == [3, 4]
    assert [r.train_loss for r in resumed.epochs] == [r.train_loss for r in uninterrupted.epochs[2:]]
    assert all(expected[name].equal(actual[name]) for name in expected)


def test_state_of_another_network_is_refused():
    witness = Witness()
    run(witness)
    other = Optimisation(UNet(NetworkShape(width=8, depth=2)), CONFIG, device=CPU, steps=20)
    with pytest.raises(TrainingError, match="can't go on from its state"):
        other.restore(witness.states[0])


class NarrowUNet(UNet):
    """Refuses more than one slice at a time, as a full memory would."""

    most, message = 1, "DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes."

    def forward(self, x):
        if len(x) > self.most:
            raise RuntimeError(self.message)
        return super().forward(x)


def test_batch_is_halved_until_it_fits_and_this_is_said():
    witness = Witness()
    optimisation = run(witness, optimisation=fresh(kind=NarrowUNet))
    assert optimisation.micro_batches == 4
    assert len(witness.steps) == 20
    assert witness.notices == [
        "Memory ran out: a batch of 3 now passes through the network 2 at a time, its gradients added up.",
        "Memory ran out: a batch of 3 now passes through the network 1 at a time, its gradients added up.",
    ]
    assert witness.epochs[-1].train_loss < witness.epochs[0].train_loss


def test_single_slice_that_does_not_fit_ends_training(monkeypatch):
    monkeypatch.setattr(NarrowUNet, "most", 0)
    with pytest.raises(OutOfMemoryError, match="single slice"):
        run(Witness(), optimisation=fresh(kind=NarrowUNet))


def test_other_errors_of_the_network_are_not_taken_for_a_full_memory(monkeypatch):
    monkeypatch.setattr(NarrowUNet, "message", "shapes differ")
    with pytest.raises(RuntimeError, match="shapes differ"):
        run(Witness(), optimisation=fresh(kind=NarrowUNet))


def test_gradients_of_parts_add_up_to_those_of_the_batch():
    """Without batch normalisation, which sees its part alone, parts change nothing but rounding."""
    batch = next(bright_squares(1))
    learned = []
    for micro_batches in (1, 3):
        torch.manual_seed(0)
        network = torch.nn.Conv2d(1, 1, 3, padding=1)
        config = replace(CONFIG, micro_batches=micro_batches, ema=None, dice=0.0)
        Optimisation(network, config, device=CPU, steps=9).step(batch, print)
        learned.append(network.weight.grad)
    torch.testing.assert_close(learned[0], learned[1])


def test_tumour_pixels_weigh_more_until_a_share_of_the_steps():
    config = replace(CONFIG, positive_weight=10.0, positive_weight_until=0.5, dice=0.0, learning_rate=0.0)
    optimisation = Optimisation(torch.nn.Conv2d(1, 1, 3, padding=1), config, device=CPU, steps=4)
    batch = next(bright_squares(1))
    losses = [optimisation.step(batch, print) for _ in range(4)]
    assert losses[0] == pytest.approx(losses[1])
    assert losses[2] == pytest.approx(losses[3])
    assert losses[0] > 1.2 * losses[2]


def test_pixels_without_weight_count_nowhere():
    logits = torch.linspace(-3, 3, 48).reshape(2, 1, 4, 6)
    tumour = (logits > 1).float()
    weight = torch.ones_like(tumour)
    weight[:, :, :, 4:] = 0
    other = tumour.clone()
    other[:, :, :, 4:] = 1 - other[:, :, :, 4:]
    wild = torch.where(weight == 1, logits, torch.full_like(logits, 50.0))
    assert loss_of(logits, tumour, WITH_DICE, weight=weight) == loss_of(wild, other, WITH_DICE, weight=weight)


def test_batch_without_any_weight_teaches_nothing():
    logits = torch.linspace(-3, 3, 48).reshape(2, 1, 4, 6).requires_grad_()
    loss = loss_of(logits, torch.ones_like(logits), WITH_DICE, weight=torch.zeros_like(logits))
    loss.backward()
    assert loss.isfinite()
    assert not existing(logits.grad).any()


def test_dice_without_smoothing_is_finite_where_a_mosaic_lacks_a_tile():
    config = replace(WITH_DICE, dice_smoothing_px=0.0)
    logits = torch.linspace(-3, 3, 48).reshape(2, 1, 4, 6).requires_grad_()
    loss = loss_of(logits, torch.ones_like(logits), config, tile=torch.zeros(2, 1, 4, 6, dtype=torch.uint8))
    loss.backward()
    torch.testing.assert_close(loss, loss_of(logits, torch.ones_like(logits), config))
    assert existing(logits.grad).isfinite().all()


def test_without_dice_and_weights_the_loss_is_cross_entropy():
    logits = torch.linspace(-3, 3, 48).reshape(2, 1, 4, 6)
    tumour = (logits > 1).float()
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, tumour)
    torch.testing.assert_close(loss_of(logits, tumour, replace(WITH_DICE, dice=0.0)), expected)


def test_perfect_answer_costs_nothing_also_without_tumour():
    for tumour in (torch.zeros(1, 1, 4, 6), torch.ones(1, 1, 4, 6)):
        assert float(loss_of((tumour - 0.5) * 60, tumour, WITH_DICE)) == pytest.approx(0, abs=1e-6)


def test_dice_term_is_per_scene():
    tumour = torch.zeros(2, 1, 20, 20)
    tumour[0] = 1
    logits = (tumour - 0.5) * 60
    logits[1] = 30.0  # all wrong, in one scene of two
    assert float(dice_term(logits, tumour)) == pytest.approx((1 - 8 / 408) / 2, abs=1e-4)


def test_dice_term_counts_each_tile_of_a_mosaic_alike():
    tile = torch.zeros(1, 1, 20, 20, dtype=torch.uint8)
    tile[..., :4, :4] = 1
    tumour = torch.ones(1, 1, 20, 20)
    logits = torch.where(tile == 1, -30.0, 30.0)  # all wrong in the small one of two tiles
    assert float(dice_term(logits, tumour, tile)) == pytest.approx((1 - 8 / 24) / 2, abs=1e-4)


def test_tile_whose_answer_is_unknown_is_left_out_of_the_dice_term():
    tile = torch.zeros(1, 1, 20, 20, dtype=torch.uint8)
    tile[..., :10] = 1
    tumour = torch.ones(1, 1, 20, 20)
    logits = torch.full_like(tumour, -30.0)
    known = (tile == 0).float()
    assert float(dice_term(logits, tumour, tile, known)) == pytest.approx(1 - 8 / 208, abs=1e-4)


def dice_term(logits, tumour, tile=None, weight=None):
    with_dice, without = (
        loss_of(logits, tumour, replace(WITH_DICE, dice=dice), weight=weight, tile=tile) for dice in (1.0, 0.0)
    )
    return with_dice - without


def test_rate_rises_then_falls_to_zero():
    config = OptimisationConfig(epochs=10, batch=1, warm_up=0.1, decay="cosine")
    rates = [rate_at(step, config, 100) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0.0)


def test_rate_that_is_held_falls_in_what_is_left():
    config = replace(CONFIG, warm_up=0.1, hold_until=0.6)
    rates = [rate_at(step, config, 100) for step in range(101)]
    assert set(rates[10:61]) == {1.0}
    assert rates[80] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0.0)


def test_rate_of_the_baseline_never_changes():
    assert {rate_at(step, OptimisationConfig(epochs=3, batch=1), 30) for step in range(31)} == {1.0}


@pytest.mark.parametrize("field", ["epochs", "batch", "steps", "micro_batches", "patience"])
def test_config_that_trains_nothing_is_refused(field):
    with pytest.raises(DataSetError, match=f"{field} is 0: nothing would be trained"):
        replace(CONFIG, **dict[str, Any]({field: 0}))


def test_time_left_is_told_when_a_few_steps_have_shown_it():
    class Clock(WorkClock):
        seconds = 0.0

        def now(self):
            return self.seconds

    clock = Clock()
    eta = EtaTracker(20, clock)
    told = []
    for step in (11, 12, 13, 14):  # a run that went on after its tenth
        told.append(eta.after(step))
        clock.seconds += 2.0
    assert [progress.left_s for progress in told] == [None, None, None, 12.0]
    assert (told[-1].stage, told[-1].done, told[-1].total) == ("training", 14, 20)
