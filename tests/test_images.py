"""Readers for every kind of file a camera or an annotator leaves behind; writers that leave all or nothing."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from flawsmith import images
from flawsmith.errors import FlawsmithError

RGB = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)


def save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".tiff"])
def test_lossless_formats_are_read_exactly(tmp_path: Path, suffix: str) -> None:
    read = images.read_image(save(tmp_path / f"a{suffix}", Image.fromarray(RGB)))
    assert np.array_equal(read, RGB) and read.dtype == np.uint8 and read.flags.c_contiguous


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_lossy_formats_are_close(tmp_path: Path, suffix: str) -> None:
    smooth = cv2.resize(RGB[:4, :4], (30, 20), interpolation=cv2.INTER_CUBIC)
    read = images.read_image(save(tmp_path / f"a{suffix}", Image.fromarray(smooth), quality=95))
    assert read.shape == RGB.shape and np.abs(read.astype(int) - smooth).mean() < 6


def test_grey_is_repeated_alpha_dropped_palette_resolved(tmp_path: Path) -> None:
    grey = RGB[..., 0]
    assert np.array_equal(
        images.read_image(save(tmp_path / "l.png", Image.fromarray(grey))), grey[..., None].repeat(3, 2)
    )
    rgba = np.dstack([RGB, np.full((20, 30), 7, np.uint8)])
    assert np.array_equal(images.read_image(save(tmp_path / "a.png", Image.fromarray(rgba))), RGB)
    la = Image.merge("LA", [Image.fromarray(grey), Image.fromarray(grey)])
    assert np.array_equal(images.read_image(save(tmp_path / "la.png", la))[..., 1], grey)
    palette = Image.fromarray(RGB).quantize(16)
    assert np.array_equal(images.read_image(save(tmp_path / "p.png", palette)), np.asarray(palette.convert("RGB")))
    bits = Image.fromarray(grey > 128)
    assert set(np.unique(images.read_image(save(tmp_path / "1.png", bits)))) == {0, 255}


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_grey(tmp_path: Path, suffix: str) -> None:
    deep = (RGB[..., 0].astype(np.uint16) << 8) + 77
    read = images.read_image(save(tmp_path / f"deep{suffix}", Image.fromarray(deep)))
    assert np.array_equal(read[..., 2], RGB[..., 0])
    twelve = RGB[..., 0].astype(np.uint16) << 4  # a 12-bit camera
    read = images.read_image(save(tmp_path / f"twelve{suffix}", Image.fromarray(twelve)))
    assert np.array_equal(read[..., 0], RGB[..., 0])


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_colour(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"deep{suffix}"
    cv2.imwrite(str(path), (RGB[..., ::-1].astype(np.uint16) << 8) + 3)
    assert np.array_equal(images.read_image(path), RGB)


def test_float_tiff(tmp_path: Path) -> None:
    path = save(tmp_path / "f.tif", Image.fromarray((RGB[..., 0] / 255).astype(np.float32)))
    assert np.array_equal(images.read_image(path)[..., 0], RGB[..., 0])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "o.png", Image.fromarray(RGB), exif=exif)
    turned = {
        1: RGB,
        2: RGB[:, ::-1],
        3: RGB[::-1, ::-1],
        4: RGB[::-1],
        5: RGB.transpose(1, 0, 2),
        6: RGB.transpose(1, 0, 2)[:, ::-1],
        7: RGB.transpose(1, 0, 2)[::-1, ::-1],
        8: RGB.transpose(1, 0, 2)[::-1],
    }[orientation]
    assert np.array_equal(images.read_image(path), turned)
    assert images.image_size(path) == turned.shape[:2]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp", ".webp"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.6])
def test_damaged_files_are_named(tmp_path: Path, suffix: str, share: float) -> None:
    noisy = np.random.default_rng(0).integers(0, 256, (200, 300, 3)).astype(np.uint8)
    path = save(tmp_path / f"bröken file{suffix}", Image.fromarray(noisy))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(FlawsmithError, match="bröken file") as caught:
        images.read_image(path)
    assert ("(0 bytes)" in str(caught.value)) == (share == 0)


def test_damaged_deep_files_are_named(tmp_path: Path) -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (200, 300, 3)).astype(np.uint16)
    for name, array in (("rgb.png", deep), ("rgb.tif", deep), ("grey.png", deep[..., 0]), ("grey.tif", deep[..., 0])):
        path = tmp_path / name
        cv2.imwrite(str(path), array)
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(FlawsmithError, match=name):
            images.read_image(path)


def test_cmyk_is_read_as_the_colours_it_prints(tmp_path: Path) -> None:
    for suffix in ("tif", "jpg"):
        save(tmp_path / f"c.{suffix}", Image.fromarray(RGB).convert("CMYK"), quality=95)
        read = images.read_image(tmp_path / f"c.{suffix}").astype(int)
        assert np.abs(read - RGB).mean() < 3


def test_heic_is_read_and_exported_as_png(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
    from flawsmith.datasets.check import check
    from flawsmith.datasets.exports.run import export

    smooth = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8), (0, 0), 4)
    path = tmp_path / "set/good/phone.HEIC"
    path.parent.mkdir(parents=True)
    heif.from_pillow(Image.fromarray(smooth)).save(path, quality=95)
    assert images.image_size(path) == (40, 60)
    assert np.abs(images.read_image(path).astype(int) - smooth).mean() < 3
    images.verify(path)
    assert check(tmp_path / "set").rows[0]["mode"] == "RGB"
    export(tmp_path / "set", tmp_path / "out", ["coco"])
    (written,) = (tmp_path / "out/images/train").iterdir()
    assert written.suffix == ".png" and np.array_equal(images.read_image(written), images.read_image(path))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(FlawsmithError, match=r"phone\.HEIC cannot be read"):
        images.read_image(path)


def test_heic_without_its_reader_is_refused_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "a.heic").write_bytes(b"whatever")
    for read in (images.read_image, images.image_size, images.verify):
        with pytest.raises(FlawsmithError, match=r"a\.heic is HEIC, .* pip install 'flawsmith\[heic\]', or export it"):
            read(tmp_path / "a.heic")


def test_missing_text_and_folder(tmp_path: Path) -> None:
    with pytest.raises(FlawsmithError, match="does not exist"):
        images.read_image(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("not an image")
    for path in (tmp_path / "text.png", tmp_path):
        with pytest.raises(FlawsmithError, match="cannot be read"):
            images.read_image(path)
        with pytest.raises(FlawsmithError):
            images.image_size(path)


def test_oversized_images_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "big.png", Image.fromarray(RGB))
    monkeypatch.setattr(images, "MAX_PIXELS", 599)
    with pytest.raises(FlawsmithError, match="cut it into tiles"):
        images.read_image(path)


def test_masks(tmp_path: Path) -> None:
    mask = RGB[..., 0] > 100
    images.write_image(tmp_path / "m.png", mask)
    assert np.array_equal(images.read_mask(tmp_path / "m.png"), mask)
    index = save(tmp_path / "index.png", Image.fromarray(mask.astype(np.uint8) * 3))  # classes 0 and 3
    assert np.array_equal(images.read_mask(index), mask)
    ramp = np.arange(256, dtype=np.uint8)[None].repeat(4, 0)  # antialiased edges: half is the limit
    assert images.read_mask(save(tmp_path / "soft.png", Image.fromarray(ramp))).sum() == 4 * 128
    empty = save(tmp_path / "empty.png", Image.fromarray(np.zeros((5, 6), np.uint8)))
    assert not images.read_mask(empty).any()


def test_png_round_trip(tmp_path: Path) -> None:
    images.write_image(tmp_path / "new folder" / "ä b.png", RGB)
    assert np.array_equal(images.read_image(tmp_path / "new folder" / "ä b.png"), RGB)


@pytest.mark.parametrize("failing", ["fsync", "replace"])
@pytest.mark.parametrize(("code", "word"), [(errno.ENOSPC, "free some space"), (errno.EACCES, "permissions")])
def test_a_failed_write_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str, code: int, word: str
) -> None:
    target = tmp_path / "out" / "a.png"
    images.write_bytes(target, b"old")

    def broken(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, failing, broken)
    for partial in (None, tmp_path / "partial"):
        with pytest.raises(FlawsmithError, match=word):
            images.write_bytes(target, b"new", partial)
        assert target.read_bytes() == b"old"
        assert [p for p in tmp_path.rglob("*") if p.is_file()] == [target]


def test_an_interrupt_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        images.write_bytes(tmp_path / "a.bin", b"half")
    assert not list(tmp_path.iterdir())


def test_a_file_where_a_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(FlawsmithError, match="cannot be written"):
        images.write_bytes(tmp_path / "file" / "a.png", b"x")
    with pytest.raises(FlawsmithError, match="cannot be written"):
        images.write_bytes(tmp_path / "b.png", b"x", partial=tmp_path / "file" / "partial")


def test_shas_tell_files_and_arrays_apart(tmp_path: Path) -> None:
    images.write_bytes(tmp_path / "a", b"1")
    images.write_bytes(tmp_path / "b", b"2")
    assert images.file_sha(tmp_path / "a") != images.file_sha(tmp_path / "b")
    assert len(images.file_sha(tmp_path / "a")) == 16
    assert images.array_sha(RGB) == images.array_sha(RGB.copy()) != images.array_sha(RGB.reshape(30, 20, 3))


def test_resizing_keeps_kinds() -> None:
    small = images.resize(RGB, 10, 15)
    assert small.shape == (10, 15, 3) and small.dtype == np.uint8
    assert images.resize(RGB[..., 0].astype(np.float32), 40, 60).shape == (40, 60)
    mask = RGB[..., 0] > 100
    assert np.array_equal(images.resize_mask(images.resize_mask(mask, 40, 60), 20, 30), mask)


def test_sheets_overlays_and_fits() -> None:
    mask = np.zeros((20, 30), dtype=bool)
    mask[5:15, 5:15] = True
    drawn = images.overlay(RGB, mask, (1, 2, 3))
    assert (drawn[5, 5] == (1, 2, 3)).all() and np.array_equal(drawn[8:12, 8:12], RGB[8:12, 8:12])
    assert images.fit(RGB, 64).shape == (64, 64, 3) and images.mask_image(mask).shape == (20, 30, 3)
    page = images.contact_sheet([[RGB, drawn], [RGB]], titles=["a", "b"], captions=["long " * 50, "ü"], cell=64)
    assert page.ndim == 3 and page.dtype == np.uint8 and page.shape[1] == 2 * 70 + 6
    with pytest.raises(FlawsmithError, match="at least one"):
        images.contact_sheet([])
