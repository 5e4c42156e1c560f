"""Distil the static word table of the compact backbone from all-MiniLM-L6-v2. Run once; the result is
shipped.

    python recipes/compact/distill_words.py TEACHER_FOLDER OUT_FOLDER

TEACHER_FOLDER holds the Apache-2.0 model (config.json, model.safetensors, vocab.txt). No corpus is needed:
the teacher reads every word piece in a few plain contexts, and generated inspection phrases (lexicon.json);
the table learns to give the same sentence vectors by a weighted mean. Synonym groups (synonyms.json) pull
equal meanings together. paraphrases.json is never trained on; it is the exam.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModel

from flawsmith.diffusion.compact.words import WordPiece, WordTable, cosine

HERE = Path(__file__).parent
log = logging.getLogger("distill")


def phrases(lexicon: dict[str, list[str]], count: int, seed: int) -> list[str]:
    """`count` different inspection phrases from the templates."""
    rng = np.random.default_rng(seed)
    pick = {
        k: np.array(lexicon[v])
        for k, v in dict(
            a="adjectives",
            a2="adjectives",
            c="colours",
            d="defects",
            d2="defects",
            m="materials",
            o="objects",
            o2="objects",
        ).items()
    }
    templates = lexicon["templates"]
    found: dict[str, None] = {
        w: None for key in ("defects", "adjectives", "colours", "materials", "objects") for w in lexicon[key]
    }
    for _ in range(count * 3):
        template = templates[rng.integers(len(templates))]
        found[template.format(**{k: rng.choice(v) for k, v in pick.items()})] = None
        if len(found) >= count:
            break
    return list(found)


@torch.inference_mode()
def embed(teacher: nn.Module, rows: list[list[int]], tokens: bool = False) -> Tensor:
    """Unit sentence vectors (N, 384) of rows of piece ids; with `tokens`, the mean over the pieces between
    the special marks.
    """
    out = torch.zeros(len(rows), teacher.config.hidden_size)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    for start in range(0, len(order), 256):
        part = order[start : start + 256]
        width = max(len(rows[i]) for i in part) + 2
        ids, mask = torch.zeros(len(part), width, dtype=torch.long), torch.zeros(len(part), width)
        for r, i in enumerate(part):
            row = [101, *rows[i], 102]
            ids[r, : len(row)] = torch.tensor(row)
            mask[r, : len(row)] = 1
        with torch.autocast("cpu", torch.bfloat16):
            hidden = teacher(input_ids=ids, attention_mask=mask.long()).last_hidden_state.float()
        if tokens:
            inner = mask.clone()
            inner[:, 0] = 0
            inner[torch.arange(len(part)), mask.sum(1).long() - 1] = 0
            mask = inner
        out[part] = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    return nn.functional.normalize(out, dim=-1)


def examine(similarity: np.ndarray) -> dict[str, float]:
    """Top-1 retrieval (mean of both directions), mean margin over the average and over the best mismatch,
    share of wins.
    """
    n = len(similarity)
    right, off = np.diag(similarity), similarity[~np.eye(n, dtype=bool)].reshape(n, n - 1)
    top = [(s.argmax(1) == np.arange(n)).mean() for s in (similarity, similarity.T)]
    return {
        "top1": float(np.mean(top)),
        "pair": float(right.mean()),
        "mismatch": float(off.mean()),
        "margin": float(right.mean() - off.mean()),
        "margin_best": float((right - off.max(1)).mean()),
        "wins": float((right[:, None] > off).mean()),
    }


def content(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text.lower())) - set(
        ["a", "an", "the", "in", "of", "on", "with", "is", "to", "from", "between", "at"]
    )


def report(
    tokenizer: WordPiece, table: WordTable, exam: list[list[str]], groups: list[list[str]]
) -> dict[str, dict[str, float]]:
    """The exam on all pairs, and on those whose two sides share no synonym group word by word (nothing could
    leak).
    """
    left, right = zip(*exam, strict=True)
    sim = cosine(table, tokenizer, left, right)
    bags = [set().union(*map(content, g)) for g in groups]
    clean = [i for i, (a, b) in enumerate(exam) if not any(content(a) & g and content(b) & g for g in bags)]
    result = {"all": examine(sim)}
    rows = sim[clean]
    top = [int(rows[r].argmax() == i) for r, i in enumerate(clean)]
    wins = [(rows[r, i] > np.delete(rows[r], i)).mean() for r, i in enumerate(clean)]
    result["clean"] = {"pairs": len(clean), "top1": float(np.mean(top)), "wins": float(np.mean(wins))}
    return result


def train(
    vectors: Tensor,
    weight: Tensor,
    rows: list[list[int]],
    target: Tensor,
    groups: list[list[list[int]]],
    steps: int,
    seed: int,
    pull: float,
) -> WordTable:
    """Fit piece vectors and weights so that their weighted mean is the teacher's sentence vector (target (N,
    E), unit).
    """
    table, logit = nn.Parameter(vectors.clone()), nn.Parameter(torch.logit(weight.clamp(0.02, 0.98)))
    rng = np.random.default_rng(seed)
    optimiser = torch.optim.Adam([{"params": [table], "lr": 2e-3}, {"params": [logit], "lr": 1e-2}])
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, [4e-3, 2e-2], total_steps=steps, pct_start=0.1)

    def pool(batch: list[list[int]]) -> Tensor:
        width = max(map(len, batch))
        ids, valid = torch.zeros(len(batch), width, dtype=torch.long), torch.zeros(len(batch), width)
        for i, row in enumerate(batch):
            ids[i, : len(row)], valid[i, : len(row)] = torch.tensor(row), 1
        w = logit[ids].sigmoid() * valid
        return nn.functional.normalize((table[ids] * w[..., None]).sum(1) / w.sum(1, keepdim=True), dim=-1)

    anchor = vectors.clone()
    for step in range(steps):
        pick = rng.integers(len(rows), size=1024)
        mine, wanted = pool([rows[i] for i in pick]), target[pick]
        loss = (1 - (mine * wanted).sum(1)).mean() + 2 * ((mine @ mine.T) - (wanted @ wanted.T)).square().mean()
        if pull:
            chosen = rng.permutation(len(groups))[:96]
            two = [rng.choice(len(groups[g]), 2, replace=False) for g in chosen]
            left = pool([groups[g][a] for g, (a, _) in zip(chosen, two, strict=True)])
            right = pool([groups[g][b] for g, (_, b) in zip(chosen, two, strict=True)])
            logits = left @ right.T / 0.1
            same = torch.arange(len(chosen))
            loss = (
                loss
                + pull * (nn.functional.cross_entropy(logits, same) + nn.functional.cross_entropy(logits.T, same)) / 2
            )
        loss = loss + 0.02 * (table - anchor).square().sum(1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 200 == 0:
            log.info("step %d loss %.4f", step, loss.item())
    with torch.no_grad():
        return WordTable(table.detach(), logit.detach().sigmoid())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("teacher", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--phrases", type=int, default=60_000)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--pull", type=float, default=0.3, help="weight of the synonym groups")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.manual_seed(args.seed)

    teacher = AutoModel.from_pretrained(args.teacher, attn_implementation="sdpa").eval()
    tokenizer = WordPiece.from_file(args.teacher / "vocab.txt")
    exam = json.loads((HERE / "paraphrases.json").read_text())["pairs"]
    banned = {p for pair in exam for p in pair}
    groups = [[p for p in g if p not in banned] for g in json.loads((HERE / "synonyms.json").read_text())["groups"]]
    groups = [g for g in groups if len(g) > 1]
    sentences = [
        s for s in phrases(json.loads((HERE / "lexicon.json").read_text()), args.phrases, args.seed) if s not in banned
    ]
    sentences += [p for g in groups for p in g]

    cache = args.out / "teacher.pt"
    if cache.exists():
        seen, words, sides = torch.load(cache, weights_only=True).values()
    else:
        args.out.mkdir(parents=True, exist_ok=True)
        ids = list(range(len(tokenizer.vocabulary)))
        contexts = ["{}", "a {}", "the {} is visible", "{} surface", "this part shows {}"]
        words = torch.zeros(len(ids), teacher.config.hidden_size)
        for context in contexts:
            before, after = (tokenizer.pieces(side) for side in context.split("{}"))
            words += (
                embed(teacher, [[*before, i, *after] for i in ids])
                if context == "{}"
                else 0.5 * embed(teacher, [[*before, i, *after] for i in ids], tokens=True)
            )
            log.info("context %r done", context)
        words = nn.functional.normalize(words, dim=-1)
        seen = embed(teacher, [tokenizer.pieces(s) for s in sentences])
        sides = embed(teacher, [tokenizer.pieces(s) for pair in exam for s in pair])
        torch.save({"seen": seen, "words": words, "sides": sides}, cache)
    log.info("teacher %s", examine((sides[::2] @ sides[1::2].T).numpy()))

    centre = seen.mean(0)
    _, _, basis = torch.pca_lowrank(
        torch.cat([seen - centre, words - words.mean(0)]), q=args.width, center=False, niter=4
    )
    target = nn.functional.normalize((seen - centre) @ basis, dim=-1)
    vectors = nn.functional.normalize((words - words.mean(0)) @ basis, dim=-1)
    # the vocabulary is sorted by frequency: Zipf's law stands in for counts (SIF weighting, Arora et al. 2017)
    rank = torch.arange(len(words)).float().clamp_min(1)
    weight = 1e-3 / (1e-3 + 0.1 / (rank - 990).clamp_min(1))
    plain = WordTable(vectors, weight)
    log.info("untrained %s", report(tokenizer, plain, exam, groups))
    rows = [tokenizer.pieces(s) for s in sentences] + [[i] for i in range(len(tokenizer.vocabulary))]
    ids_of = [[tokenizer.pieces(p) for p in g] for g in groups]
    table = train(vectors, weight, rows, torch.cat([target, vectors]), ids_of, args.steps, args.seed, args.pull)
    table.save(args.out / "words.safetensors")
    tokenizer.save(args.out / "vocab.txt")
    figures = report(tokenizer, WordTable.from_file(args.out / "words.safetensors"), exam, groups)
    figures["teacher"] = examine((sides[::2] @ sides[1::2].T).numpy())
    figures["untrained"] = report(tokenizer, plain, exam, groups)["all"]
    figures["synonym_groups"] = {"count": len(groups)}
    (args.out / "words.json").write_text(json.dumps(figures, indent=1) + "\n")
    log.info("trained %s", json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
