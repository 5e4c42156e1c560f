"""AnomalyXFusion on the paper's own stack, tiny: LDM with its text encoder, CLIP's features."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("peft")

import thin  # noqa: E402
from small import samples  # noqa: E402
from xfusion import masks, step_loss, windows  # noqa: E402

from contract import MASKS, a_request, check  # noqa: E402
from flawsmith.errors import FlawsmithError  # noqa: E402
from flawsmith.methods.anomalyxfusion.synthesizer import AnomalyXFusion  # noqa: E402
from flawsmith.training.settings import FitConfig  # noqa: E402


def test_ldm_stack(clip: Path) -> None:
    """Tokens take the placeholder's place before the encoder, the length stays 77, DDF acts on their places only."""
    ldm = thin.backbone("ldm")
    with pytest.raises(FlawsmithError, match="CLIP model"):
        AnomalyXFusion(ldm)
    made = AnomalyXFusion(ldm, {"clip": str(clip), "in_fusion": False})
    made.extend({"widget/hole": samples("hole", 2), "widget/crack": ()})
    assert made.insertion == "before_encoder" and made.sizes == [4, 4, 4]
    word = ldm.text_encoder.model.embed_tokens.weight[thin.BERT_WORDS.index("anomaly")]
    x = made.fuse(["a hole", "a hole"], ["widget/hole"] * 2, masks(2))
    assert torch.equal(x[0, :4], word.expand(4, -1))  # P = 0: the released code's start
    assert made.texture.get_buffer("feature_0").abs().sum() > 0
    keep = torch.tensor([False, False])
    fused = made.insert(["a hole"] * 2, x, keep)
    context = made.condition(fused, torch.tensor([10, 900])).context
    assert context.shape == (2, 77, 16) and torch.equal(context, fused.text)  # DDF at its start
    ids = ldm.tokenizer("a photo of *", padding="max_length", max_length=77).input_ids
    embedded = ldm.text_encoder.model.embed_tokens(torch.tensor([ids]))
    first = ids.index(thin.BERT_WORDS.index("*"))
    by_hand = torch.cat([embedded[:, :first], x[:1], embedded[:, first + 1 :]], 1)[:, :77]
    assert torch.allclose(context[:1], ldm.text_encoder(inputs_embeds=by_hand)[0], atol=1e-5)
    torch.nn.init.normal_(made.dif_fusion.mlp[-1].bias)
    moved = (made.condition(fused, torch.tensor([10, 900])).context - fused.text).abs().sum(2) > 0
    assert moved[:, first : first + 12].all() and moved.sum() == 24
    config = FitConfig(batch_size=4, bf16=False, loss_norm="all", snr_cap=0.0)
    batch = windows().batch(0, 4)
    step_loss(ldm, batch, 0, config, made.training_condition).backward()
    assert all(p.grad is None for module in ldm.modules().values() for p in module.parameters())
    assert made.semantic.project.weight.grad.abs().sum() > 0 and made.texture.table[0].grad.abs().sum() > 0
    request = a_request(made, MASKS["ring"], 3)
    made.options = made.parse_options({"steps": 2, "sampler": "ddim"}, made.options)
    for options in ({}, {"reweight": True, "eta": 1.0}):
        check(request, made.generate([request], **options)[0])


def test_clip_features(clip: Path, folder: Path) -> None:
    """An empty caption is nothing, and of an image only the masked patch counts."""
    made = AnomalyXFusion(str(folder), {"clip": str(clip)})
    assert made.insertion == "context" and made.sizes == [4, 4, 4]
    found = made.features.text(["a hole", ""])
    assert found.shape == (2, 12) and found[0].abs().sum() > 0 and not found[1].any()
    image, mask = torch.rand(1, 3, 64, 64) * 2 - 1, torch.zeros(1, 1, 64, 64)
    mask[..., 20:40, 20:40] = 1
    elsewhere = torch.where(mask > 0, image, -image)
    assert torch.equal(made.features.image(image, mask), made.features.image(elsewhere, mask))
    assert not torch.allclose(made.features.image(image, mask), made.features.image(-image, mask))


def test_clip_and_ldm_are_asked_for_by_name(folder: Path) -> None:
    with pytest.raises(FlawsmithError, match="before_encoder"):
        AnomalyXFusion(str(folder), {"insertion": "before_encoder"})
    with pytest.raises(FlawsmithError, match="CLIP"):
        AnomalyXFusion(str(folder), {"clip": str(folder)})
