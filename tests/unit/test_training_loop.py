"""The loop: what it minimises, when it stops, whom it tells."""

import math

import pytest
import torch

from lungseg.card import NetworkShape
from lungseg.errors import DataSetError
from lungseg.training.batches import Batch
from lungseg.training.loop import Callbacks, loss_of, rate_at, train
from lungseg.training.presets import Schedule
from lungseg.unet import UNet

CPU = torch.device("cpu")
SCHEDULE = Schedule(epochs=4, steps=5, batch=3, side_px=16, learning_rate=0.02, ema=0.5)


def bright_squares(epoch, poison=0.0):
    generator = torch.Generator().manual_seed(epoch)
    for _ in range(SCHEDULE.steps):
        tumour = torch.zeros(3, 1, 16, 24)
        tumour[:, :, 4:10, 5:15] = 1
        noise = torch.randn(3, 1, 16, 24, generator=generator) * 0.1
        yield Batch(tumour + noise + poison, tumour, torch.ones_like(tumour))


class Witness:
    def __init__(self, stop_after=math.inf):
        self.steps, self.epochs, self.networks, self.stop_after = [], [], [], stop_after

    @property
    def callbacks(self):
        return Callbacks(self.steps.append, self.on_epoch, lambda: len(self.steps) >= self.stop_after)

    def on_epoch(self, report, network):
        self.epochs.append(report)
        self.networks.append(network)


def run(witness, batches=bright_squares, validate=lambda _: 0.0):
    torch.manual_seed(0)
    network = UNet(NetworkShape(width=4, depth=2, channels=1))
    train(network, SCHEDULE, batches=batches, validate=validate, callbacks=witness.callbacks, device=CPU)
    return network


def test_loss_falls_and_everyone_is_told():
    witness = Witness()
    run(witness)
    assert [report.done for report in witness.steps] == list(range(1, 21))
    assert [report.epoch for report in witness.epochs] == [1, 2, 3, 4]
    assert witness.epochs[-1].loss < 0.8 * witness.epochs[0].loss
    assert witness.epochs[-1].learning_rate == pytest.approx(0.0, abs=1e-9)


def test_same_seed_gives_the_same_weights():
    first, second = run(Witness()).state_dict(), run(Witness()).state_dict()
    assert all(first[name].equal(second[name]) for name in first)


def test_best_epochs_are_told_apart():
    scores = iter([0.2, 0.5, 0.4, 0.6])
    witness = Witness()
    run(witness, validate=lambda _: next(scores))
    assert [report.is_best for report in witness.epochs] == [True, True, False, True]


def test_validated_is_the_moving_average():
    seen, witness = [], Witness()

    def validate(network):
        seen.append(network)
        return 0.0

    trained = run(witness, validate=validate)
    assert seen == witness.networks
    assert not seen[0].head.weight.equal(trained.head.weight)


def test_stop_ends_after_the_step_and_validates_what_there_is():
    witness = Witness(stop_after=7)
    run(witness)
    assert len(witness.steps) == 7
    assert [report.epoch for report in witness.epochs] == [1, 2]


def test_loss_that_is_not_finite_ends_training():
    with pytest.raises(DataSetError, match="loss became nan"):
        run(Witness(), batches=lambda epoch: bright_squares(epoch, poison=math.nan))


def test_pixels_without_weight_count_nowhere():
    logits = torch.linspace(-3, 3, 48).reshape(2, 1, 4, 6)
    tumour = (logits > 1).float()
    weight = torch.ones_like(tumour)
    weight[:, :, :, 4:] = 0
    other = tumour.clone()
    other[:, :, :, 4:] = 1 - other[:, :, :, 4:]
    wild = torch.where(weight == 1, logits, torch.full_like(logits, 50.0))
    assert loss_of(logits, tumour, weight, 1.0) == loss_of(wild, other, weight, 1.0)


def test_perfect_answer_costs_nothing_also_without_tumour():
    for tumour in (torch.zeros(1, 1, 4, 6), torch.ones(1, 1, 4, 6)):
        assert float(loss_of((tumour - 0.5) * 60, tumour, torch.ones_like(tumour), 1.0)) == pytest.approx(0, abs=1e-6)


def test_dice_term_is_per_scene():
    tumour = torch.zeros(2, 1, 20, 20)
    tumour[0] = 1
    logits = (tumour - 0.5) * 60
    logits[1] = 30.0  # all wrong, in one scene of two
    weight = torch.ones_like(tumour)
    term = loss_of(logits, tumour, weight, 1.0) - loss_of(logits, tumour, weight, 0.0)
    assert float(term) == pytest.approx((1 - 8 / 408) / 2, abs=1e-4)


def test_rate_rises_then_falls_to_zero():
    schedule = Schedule(epochs=10, steps=10, warm_up=0.1)
    rates = [rate_at(step, schedule) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0.0)


def test_schedule_that_trains_nothing_is_refused():
    with pytest.raises(DataSetError, match="trains nothing"):
        Schedule(steps=0)
