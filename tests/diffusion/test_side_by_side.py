"""Parts of a step at the same time: the same step, in the same order, whoever finishes first."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import small  # noqa: E402

from flawsmith.diffusion import side_by_side  # noqa: E402
from flawsmith.diffusion.adapters import add_adapter  # noqa: E402
from flawsmith.diffusion.backbone import Backbone  # noqa: E402
from flawsmith.diffusion.sentences import Sentences  # noqa: E402
from flawsmith.diffusion.side_by_side import computed, threads_for  # noqa: E402
from flawsmith.methods import METHODS  # noqa: E402
from flawsmith.registry import resolve  # noqa: E402
from flawsmith.training.fitting import fit_adapter  # noqa: E402
from flawsmith.training.settings import FitConfig  # noqa: E402
from flawsmith.training.steps import Steps  # noqa: E402
from flawsmith.training.trainer import Trainer  # noqa: E402
from flawsmith.training.windows import FewShotWindows  # noqa: E402


def threads_of_a_new_one() -> int:
    found: list[int] = []
    one = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    one.start()
    one.join(60)
    return found[0]


def test_results_keep_their_order_and_threads_are_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three parts that can only end together, of which the first waits longest."""
    before = torch.get_num_threads()
    torch.set_num_threads(6)
    try:
        together, ended = threading.Barrier(3, timeout=20), [threading.Event() for _ in range(4)]
        ended[3].set()

        def part(number: int) -> tuple[int, int]:
            together.wait()  # breaks unless all three run at once
            assert ended[number + 1].wait(60)
            ended[number].set()
            return number, torch.get_num_threads()

        parts: list[Callable[[], tuple[int, int]]] = [lambda n=n: part(n) for n in range(3)]  # type: ignore[misc]
        assert list(computed(parts, 3)) == [(0, 2), (1, 2), (2, 2)]
        assert torch.get_num_threads() == 6 and threads_of_a_new_one() == 6
        with pytest.raises(ZeroDivisionError):
            list(computed([lambda: 1, lambda: 1 // 0], 2))
        assert torch.get_num_threads() == 6
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("threads", "device", "windows", "expected"),
    [(2, "cpu", 12, 2), (1, "cpu", 12, 1), (8, "cpu", 12, 4), (8, "cpu", 2, 1), (8, "cuda", 12, 1)],
)
def test_no_more_threads_than_torch_may_use_and_windows_fill(
    threads: int, device: str, windows: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert threads_for(torch.device(device), windows) == expected


def test_gradients_of_parts_add_up_whichever_has_some(tmp_path: Path) -> None:
    """By hand: the slope of 3 a + 5 a + 7 b is (8, 7), of c there is none."""
    a, b, c = (torch.nn.Parameter(torch.tensor([1.0])) for _ in range(3))
    trainer = Trainer({"a": a, "b": b, "c": c}, tmp_path, learning_rate=0.1, clip=1e9)
    loss, norm = trainer.step([lambda: 3 * a.sum(), lambda: (5 * a + 7 * b).sum()], 0.1, threads=2)
    assert loss == 15.0 and norm == pytest.approx((8.0**2 + 7.0**2) ** 0.5)
    assert (a.grad.item(), b.grad.item(), c.grad) == (8.0, 7.0, None)


@pytest.mark.parametrize("threads", [2, 4])
def test_a_step_does_not_depend_on_how_many_threads_compute_it(threads: int, folder: Path, tmp_path: Path) -> None:
    """The whole gradient of an adapter on the compact denoiser, and the held-out loss, ten times beside one thread."""
    config = FitConfig(batch_size=12, bf16=False)
    backbone = Backbone.from_pretrained(folder).freeze()
    parameters = add_adapter(backbone, "one", 4, 0)
    with torch.no_grad():  # layers that start at zero must have something to say
        generator = torch.Generator().manual_seed(1)
        for parameter in parameters.values():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        parameter = backbone.unet.gates.weight  # reads what the threads must not take from each other
        parameter.add_(0.5 * torch.randn(parameter.shape, generator=generator))
    windows = FewShotWindows(small.samples("hole", 3), (), (), backbone.size, config)
    together: list[threading.Barrier] = []

    def meet(*_: Any) -> None:  # once every thread has kept what its gates read
        if together:
            together[0].wait()

    backbone.unet.conv_out.register_forward_hook(meet)
    steps = Steps(backbone, lambda n: windows.batch(n, 12), windows.batch(0, 16, real_only=True), config)

    def slopes(count: int) -> tuple[float, dict[str, torch.Tensor]]:
        steps.threads = count
        trainer = Trainer(parameters, tmp_path, learning_rate=0.0, weight_decay=0.0, clip=1e9)
        loss, _ = trainer.step(steps(0), 0.0, count)
        return loss, {name: p.grad.clone() for name, p in parameters.items()}

    loss, alone = slopes(1)
    held_out = steps.held_out()
    together.append(threading.Barrier(threads, timeout=20))
    for _ in range(10):
        other, found = slopes(threads)
        assert other == pytest.approx(loss, rel=1e-5) and steps.held_out() == pytest.approx(held_out, rel=1e-5)
        for name, gradient in alone.items():
            assert torch.allclose(found[name], gradient, atol=1e-5 * float(gradient.abs().max()) + 1e-9), name


def test_a_fit_of_two_threads_has_the_same_bytes_every_time(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flawsmith.training.steps.threads_for", lambda device, windows: 2)
    found = []
    for name in ("one", "two"):
        backbone = Backbone.from_pretrained(folder).freeze()
        config = replace(FitConfig(), steps=4, batch_size=6, rank=2, evaluate_every=2)
        samples = small.samples("hole", 3)
        fit_adapter(backbone, "a", samples, (), (), tmp_path / name, config, held_out=samples[:1])
        found.append((tmp_path / name / "state.safetensors").read_bytes())
    assert found[0] == found[1]


@pytest.mark.parametrize("method", ["inpaint", "anomalycontrol", "anomalyxfusion"])
def test_images_do_not_depend_on_torchs_threads(method: str, folder: Path) -> None:
    """Parts in one thread, in two, in three and one by one: the same pixels."""
    made: Any = resolve(method, METHODS, "Method")(str(folder), min_visibility=0, min_share=0, threshold=0, steps=2)
    requests = [small.request(seed, shown=seed % 3) for seed in range(9)]
    if method == "anomalyxfusion":
        made.extend({"widget/hole": small.samples("hole", 2)})
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append([sample.image.tobytes() for sample in made.generate(requests)])
            assert torch.get_num_threads() == threads
        found.append([made.generate([request])[0].image.tobytes() for request in requests])
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1] == found[2] == found[3] and len(set(found[0])) > 1


def test_reweighted_windows_are_not_divided(folder: Path) -> None:
    """Re-weighting stands in the denoiser: two parts at a time would take each other's images."""
    made: Any = resolve("anomalyxfusion", METHODS, "Method")(
        str(folder), min_visibility=0, min_share=0, threshold=0, steps=2, reweight=True
    )
    made.extend({"widget/hole": small.samples("hole", 2)})
    asked: list[int] = []
    made.backbone.unet.register_forward_pre_hook(lambda _, given: asked.append(len(given[0])))
    made.generate([small.request(seed) for seed in range(8)])
    assert asked and min(asked) >= 8


def test_two_callers_give_back_what_was_before_both() -> None:
    before = torch.get_num_threads()
    first_in, second_in, first_out = (threading.Event() for _ in range(3))

    def first() -> None:
        first_in.set()
        assert second_in.wait(60)

    def second() -> int:
        second_in.set()
        assert first_out.wait(60)
        return torch.get_num_threads()

    def late() -> None:
        assert first_in.wait(60)
        seen.extend(computed([second], 1, within=3))
        seen.append(torch.get_num_threads())

    seen: list[Any] = []
    torch.set_num_threads(5)
    try:
        other = threading.Thread(target=late)
        other.start()
        list(computed([first], 1, within=2))
        first_out.set()
        other.join(60)
        assert torch.get_num_threads() == 5 and seen == [3, 5] and not side_by_side.lent
    finally:
        torch.set_num_threads(before)


def test_sentences_are_encoded_by_one_thread_at_a_time() -> None:
    inside: list[int] = []

    def encode(words: list[str]) -> list[torch.Tensor]:
        inside.append(1)
        assert sum(inside) == 1
        threading.Event().wait(0.01)
        inside.append(-1)
        return [torch.tensor([float(len(word))]) for word in words]

    known = Sentences(encode, limit=2)
    asked = [[f"{'x' * n}"] for n in range(1, 9)] * 2
    assert [float(found[0]) for found in computed([lambda w=w: known(w) for w in asked], 4)] == [  # type: ignore[misc]
        len(words[0]) for words in asked
    ]
    assert side_by_side.LEAST == 3
