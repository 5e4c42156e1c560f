"""Splits: the papers' rule, and that nothing ever stands on both sides."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fakes
from flawsmith import datasets, images
from flawsmith.datasets.leaks import fingerprint, leak_check, merge_lookalikes, near
from flawsmith.datasets.splits import RULES, few_shot, has_groups, hold_out
from flawsmith.errors import FlawsmithError
from flawsmith.records import Record


def defects(*groups: str, kind: str = "crack") -> list[Record]:
    """Records that exist only in words; group "" means the image's own name."""
    paths = [Path(f"test/{kind}/{index:03d}.png") for index in range(len(groups))]
    return [
        Record(path, "widget", kind, split="test", group=group or path.as_posix())
        for path, group in zip(paths, groups, strict=True)
    ]


def stems(records):
    return [record.image.stem for record in records]


@pytest.mark.parametrize(("count", "third"), [(1, 0), (2, 0), (3, 1), (8, 2), (10, 3), (22, 7)])
def test_first_third_is_strictly_n_over_3_of_the_lowest_names(count, third):
    records = defects(*[""] * count)
    split = few_shot(list(reversed(records)))
    assert stems(split.support) == [f"{index:03d}" for index in range(third)]
    assert len(split.test) == count - third


def test_numbers_count_as_numbers():
    records = [replace(one, image=Path(f"test/crack/{index}.png")) for index, one in enumerate(defects(*[""] * 12))]
    assert stems(few_shot(records, shots=3).support) == ["0", "1", "2"]
    assert stems(few_shot(records).support) == ["0", "1", "2", "3"]


def test_stratified_takes_every_kth():
    records = defects(*[""] * 10)
    assert stems(few_shot(records, rule="stratified").support) == ["000", "003", "006"]
    assert stems(few_shot(records, shots=5, rule="stratified").support) == ["000", "002", "004", "006", "008"]


def test_every_type_and_category_has_its_own_third():
    records = defects(*[""] * 6) + defects(*[""] * 9, kind="hole")
    records += [replace(one, category="gear", image=Path("gear") / one.image, group=f"g{one.group}") for one in records]
    support = few_shot(records).support
    assert len(support) == 2 * (2 + 3)


def test_groups_are_the_default_and_stay_whole():
    records = defects(*"aaabbbcccddd")
    assert has_groups(records) and not has_groups(defects("", "", ""))
    split = few_shot(records)
    assert {record.group for record in split.support} == {"a"} and len(split.support) == 3
    assert {record.group for record in split.test} == {"b", "c", "d"} and not split.held_back


def test_shots_take_different_parts_first_and_leave_half_of_them():
    split = few_shot(defects(*"aaabbbcccddd"), shots=2)
    assert [record.group for record in split.support] == ["a", "b"]
    assert len(split.held_back) == 4 and {record.group for record in split.test} == {"c", "d"}
    more = few_shot(defects(*"aaabbbcccddd"), shots=5)
    assert sorted(record.group for record in more.support) == ["a", "a", "a", "b", "b"]
    assert {record.group for record in more.test} == {"c", "d"}
    assert len(few_shot(defects(*"aabb"), shots=99).support) == 4


def test_single_images_may_all_be_used():
    split = few_shot(defects(*[""] * 4), shots=4)
    assert len(split.support) == 4 and not split.test


def test_a_part_with_two_defect_types_is_closed_for_both():
    records = defects(*"abc") + defects(*"acd", kind="hole")
    split = few_shot(records, shots=1)
    assert not {record.group for record in split.support} & {record.group for record in split.test}
    assert "a" not in {record.group for record in split.test}


def test_first_third_by_name_holds_back_the_parts_it_touches():
    split = few_shot(defects(*"aabbcc"), rule="first-third", shots=1)
    assert stems(split.support) == ["000"] and stems(split.held_back) == ["001"] and len(split.test) == 4


def test_good_test_images_are_judged_on_too_unless_their_part_was_seen():
    good = [Record(Path(f"test/good/{i}.png"), "widget", split="test", group=g) for i, g in enumerate("az")]
    train = [Record(Path("train/good/0.png"), "widget", split="train", group="q")]
    split = few_shot([*train, *good, *defects(*"aabbcc")])
    assert [record.group for record in split.test if record.is_good] == ["z"]


def test_seed_changes_parts_but_not_the_papers_rule():
    grouped, plain = defects(*"aabbccddeeffgghh"), defects(*[""] * 30)
    assert {tuple(stems(few_shot(grouped, seed=seed).support)) for seed in range(6)} != {("000", "001", "002", "003")}
    assert few_shot(grouped, seed=3) == few_shot(grouped, seed=3)
    assert few_shot(plain, seed=5) == few_shot(plain)
    assert few_shot(plain, rule="stratified", seed=5) != few_shot(plain, rule="stratified")


@given(
    groups=st.lists(st.sampled_from(["", "a", "b", "c", "d", "e", "f"]), min_size=1, max_size=25),
    others=st.lists(st.sampled_from(["", "a", "c", "x", "y"]), max_size=12),
    shots=st.one_of(st.none(), st.integers(1, 12)),
    rule=st.sampled_from([None, *RULES]),
    seed=st.integers(0, 3),
    validation=st.sampled_from([0.0, 0.3, 0.7]),
)
def test_sides_never_share_an_image_or_a_part(groups, others, shots, rule, seed, validation):
    records = defects(*groups) + defects(*others, kind="hole")
    records += [Record(Path("test/good/0.png"), "widget", split="test", group="a")]
    split = few_shot(records, shots=shots, rule=rule, seed=seed, validation=validation)
    sides = [split.support, split.validation, split.test, split.held_back]
    images = [record.image for side in sides for record in side]
    assert len(images) == len(set(images)) == len(records)
    used = [{record.group for record in side} for side in sides[:3]]
    assert not (used[0] & used[1] or used[0] & used[2] or used[1] & used[2])
    if shots is not None:
        kinds = [record.defect_type for record in split.support]
        assert all(kinds.count(kind) <= shots for kind in set(kinds))
        assert kinds.count("crack") == min(shots, len(groups))


def test_copies_of_support_images_are_held_back(tmp_path):
    folder = fakes.mvtec_tree(tmp_path, defects={"crack": 6})
    shutil.copy(folder / "test/crack/000.png", folder / "test/crack/005.png")
    split = few_shot(datasets.read("mvtec_ad", folder))
    assert stems(split.support) == ["000", "001"] and stems(split.held_back) == ["005"]
    support, test = {images.file_sha(r.image) for r in split.support}, {images.file_sha(r.image) for r in split.test}
    assert not support & test


def test_refusals():
    with pytest.raises(FlawsmithError, match="no defect image"):
        few_shot([])
    with pytest.raises(FlawsmithError, match="at least 1"):
        few_shot(defects(""), shots=0)
    with pytest.raises(FlawsmithError, match="Did you mean 'stratified'"):
        few_shot(defects(""), rule="stratifed")
    with pytest.raises(FlawsmithError, match="validation"):
        few_shot(defects(""), validation=1.0)


# -- what judges a fit -------------------------------------------------------------------------------------------------


@given(
    groups=st.lists(st.sampled_from(["", "a", "b", "c", "d", "e", "f"]), max_size=25),
    others=st.lists(st.sampled_from(["", "a", "c", "x", "y"]), max_size=12),
    seed=st.integers(0, 2**31 - 1),
)
def test_what_is_held_out_shares_no_part_with_what_teaches(groups, others, seed):
    support = {"w/crack": defects(*groups), "w/hole": defects(*others, kind="hole")}
    held = hold_out(support, seed)
    assert held == hold_out(support, seed) and held.keys() == support.keys()
    parts = [{r.group for name in held for r in support[name] if (r in held[name]) is side} for side in (True, False)]
    assert not parts[0] & parts[1]
    for name, members in support.items():
        assert not members or len(held[name]) < len(members)  # something is left to learn from


@pytest.mark.parametrize(("count", "expected"), [(0, 0), (1, 0), (2, 1), (3, 1), (7, 1), (8, 2), (10, 2), (33, 7)])
def test_a_fifth_judges_and_every_shot_has_its_turn(count, expected):
    support = {"w/crack": defects(*[""] * count), "w/hole": defects(*[""] * count, kind="hole")}
    folds = [hold_out(support, seed) for seed in range(count)]
    for name, members in support.items():
        assert all(len(fold[name]) == expected for fold in folds)
        assert all(sum(record in fold[name] for fold in folds) == expected for record in members)


def test_the_type_decides_which_shot_beside_the_seed():
    names = [f"w/type {number}" for number in range(40)]
    held = {stems(hold_out({name: defects(*[""] * 4)})[name])[0] for name in names}
    assert held == {"000", "001", "002", "003"}


def test_a_part_is_held_out_of_every_type_that_shows_it():
    support = {
        "w/crack": defects(*"aabb"),
        "w/hole": defects(*"abcd", kind="hole"),
        "w/dent": defects("a", kind="dent"),
    }
    for seed in range(8):
        held = hold_out(support, seed)
        assert held["w/dent"] == [] and not any(r.group == "a" for found in held.values() for r in found)
        assert [r.group for r in held["w/crack"]] == ["b", "b"]  # a must stay: it is all that dent has
        assert "b" in {r.group for r in held["w/hole"]}


def test_copies_are_held_out_together(tmp_path):
    folder = fakes.mvtec_tree(tmp_path, defects={"crack": 3})
    shutil.copy(folder / "test/crack/000.png", folder / "test/crack/002.png")
    records = datasets.read("mvtec_ad", folder, defect="crack")
    assert {tuple(stems(hold_out({"w/crack": records}, seed)["w/crack"])) for seed in range(2)} == {
        ("000", "002"),
        ("001",),
    }


# -- leaks -------------------------------------------------------------------------------------------------------------


def test_leak_check_names_the_pairs(tmp_path):
    folder = fakes.mvtec_tree(tmp_path, defects={"crack": 6})
    shutil.copy(folder / "test/crack/000.png", folder / "test/crack/005.png")
    records = datasets.read("mvtec_ad", folder, defect="crack")
    assert leak_check(records[:2], records[2:5]) == []
    with pytest.raises(FlawsmithError, match=r"000\.png and test/crack/005\.png \(same content\)"):
        leak_check(records[:2], records[2:])
    with pytest.raises(FlawsmithError, match="same group 'p'"):
        leak_check([replace(records[0], group="p")], [replace(records[1], group="p")])


def test_near_copies_are_told_and_can_be_merged(tmp_path):
    folder = fakes.mvtec_tree(tmp_path, defects={"crack": 6}, size=(96, 128))
    first = images.read_image(folder / "test/crack/000.png")
    fakes.save(folder / "test/crack/005.png", (first * 0.98).astype("uint8"))  # taken again, a little darker
    records = datasets.read("mvtec_ad", folder, defect="crack")
    assert [(a.image.stem, b.image.stem) for a, b, _ in leak_check(records[:2], records[2:])] == [("000", "005")]
    assert leak_check(records[:2], records[2:], near_bits=None) == []
    merged = merge_lookalikes(records)
    assert merged[0].group == merged[5].group and len({record.group for record in merged}) == 5
    split = few_shot(merged)
    assert not leak_check(split.support, split.test)


def test_different_parts_of_one_product_are_not_near(tmp_path):
    prints = [fingerprint(fakes.photo(seed, (96, 128))) for seed in range(12)]
    assert near(prints) == []
    assert [(i, j) for i, j, _ in near(prints[:3], prints)] == [(0, 0), (1, 1), (2, 2)]
    assert near([], prints) == []


def test_real_groups_keep_sides_apart(shared_data):
    records = datasets.read_source(shared_data("magnetic_tile"))
    split = few_shot(records, shots=10)
    assert not {record.group for record in split.support} & {record.group for record in split.test}
    leak_check(split.support, split.test, near_bits=None)
    assert len({record.group for record in split.support if record.defect_type == "blowhole"}) == 10


def test_a_set_that_divides_its_defects_teaches_from_train_only(tmp_path):
    splits_of = ["test", "train", "train", "validation", "train", "test"]
    records = [
        Record(tmp_path / f"{number}.png", "widget", "hole", split=split, group=str(number), root=tmp_path)
        for number, split in enumerate(splits_of)
    ]
    for rule in ("first-third", "group", "stratified"):
        split = few_shot(records, shots=9, rule=rule)
        assert {record.split for record in split.support} == {"train"}
        assert {record.image.stem for record in split.test} >= {"0", "3", "5"}
    assert len(few_shot(records).support) == 1  # a third of the three that train
