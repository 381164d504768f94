"""splitiot.vision: pixels in, tensors, grids, centroids out."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from splitiot import vision
from splitiot.errors import MissingDependencyError

shapes = st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))
pictures = hnp.arrays(np.uint8, shapes)
orders = st.sampled_from(["big", "little"])


def reference_expand(pixel: int) -> list[int]:
    """One RGB565 pixel, bit by bit."""
    bits = f"{pixel:016b}"
    red, green, blue = bits[:5], bits[5:11], bits[11:]
    return [int((red * 2)[:8], 2), int((green * 2)[:8], 2), int((blue * 2)[:8], 2)]


class TestRgb565:
    @pytest.mark.parametrize("order", ["big", "little"])
    def test_every_pixel_value_against_a_reference_and_back(self, order: Any) -> None:
        values = np.arange(65536, dtype=np.uint16)
        data = values.astype(">u2" if order == "big" else "<u2").tobytes()
        out = vision.rgb565_to_rgb888(data, width=256, height=256, byte_order=order)
        assert out.reshape(-1, 3).tolist() == [reference_expand(int(v)) for v in values]
        assert vision.rgb888_to_rgb565(out, byte_order=order) == data

    @given(pictures, orders)
    def test_packing_loses_low_bits_only(self, picture: Any, order: Any) -> None:
        height, width = picture.shape[:2]
        data = vision.rgb888_to_rgb565(picture, byte_order=order)
        back = vision.rgb565_to_rgb888(data, width=width, height=height, byte_order=order)
        error = np.abs(back.astype(int) - picture)
        assert (error.max((0, 1)) <= [7, 3, 7]).all()
        assert vision.rgb888_to_rgb565(back, byte_order=order) == data

    @given(pictures)
    def test_the_two_orders_differ_by_a_swap(self, picture: Any) -> None:
        big = np.frombuffer(vision.rgb888_to_rgb565(picture, byte_order="big"), np.uint16)
        little = np.frombuffer(vision.rgb888_to_rgb565(picture, byte_order="little"), np.uint16)
        assert (big.byteswap() == little).all()

    @pytest.mark.parametrize(("data", "colour"), [(b"\xf8\x00", 0), (b"\x07\xe0", 1), (b"\x00\x1f", 2)])
    def test_primary_colours(self, data: bytes, colour: int) -> None:
        out = vision.rgb565_to_rgb888(data, width=1, height=1, byte_order="big")
        assert out[0, 0].tolist() == [255 if i == colour else 0 for i in range(3)]

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda b: np.frombuffer(b, np.uint8)])
    def test_kinds_of_buffers(self, kind: Any) -> None:
        data = bytes(range(24))
        out = vision.rgb565_to_rgb888(kind(data), width=4, height=3, byte_order="big")
        assert out.shape == (3, 4, 3)
        assert vision.rgb888_to_rgb565(out, byte_order="big") == data

    def test_a_strided_array_is_read_in_its_own_order(self) -> None:
        data = np.arange(48, dtype=np.uint8)[::2]
        out = vision.rgb565_to_rgb888(data, width=4, height=3, byte_order="big")
        assert vision.rgb888_to_rgb565(out, byte_order="big") == data.tobytes()

    def test_refusals(self) -> None:
        with pytest.raises(ValueError, match="32 bytes, got 31"):
            vision.rgb565_to_rgb888(bytes(31), width=4, height=4, byte_order="big")
        with pytest.raises(ValueError, match="byte_order"):
            vision.rgb565_to_rgb888(bytes(2), width=1, height=1, byte_order="middle")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="width"):
            vision.rgb565_to_rgb888(b"", width=0, height=1, byte_order="big")
        with pytest.raises(TypeError, match="uint16"):
            vision.rgb565_to_rgb888(np.zeros(1, np.uint16), width=1, height=1, byte_order="big")
        with pytest.raises(TypeError, match="float32"):
            vision.rgb888_to_rgb565(np.zeros((1, 1, 3), np.float32), byte_order="big")
        with pytest.raises(ValueError, match="shape"):
            vision.rgb888_to_rgb565(np.zeros((1, 3), np.uint8), byte_order="big")


class TestToTensor:
    @given(pictures)
    def test_float(self, picture: Any) -> None:
        tensor = vision.to_tensor(picture)
        assert tensor.dtype == np.float32
        assert tensor.shape == (1, *picture.shape)
        assert (tensor[0] == picture.astype(np.float32) / np.float32(255)).all()

    @given(pictures)
    def test_the_usual_quantisations_are_a_shift(self, picture: Any) -> None:
        as_int8 = vision.to_tensor(picture, dtype=np.int8)
        assert as_int8.dtype == np.int8
        assert (as_int8[0] == picture.astype(int) - 128).all()
        assert (vision.to_tensor(picture, dtype="uint8")[0] == picture).all()
        # What converters write for 1/255 in float32.
        written = vision.to_tensor(picture, dtype="int8", scale=float(np.float32(1 / 255)), zero_point=-128)
        assert (written == as_int8).all()

    @given(pictures, st.floats(1e-3, 0.1), st.integers(-128, 127))
    def test_quantise_and_back(self, picture: Any, scale: float, zero_point: int) -> None:
        tensor = vision.to_tensor(picture, dtype="int8", scale=scale, zero_point=zero_point)
        real = vision.dequantize(tensor, scale, zero_point)[0]
        wanted = picture / 255
        inside = (tensor[0] > -128) & (tensor[0] < 127)
        assert (np.abs(real - wanted)[inside] <= scale / 2 + 1e-5).all()
        assert (wanted[tensor[0] == 127] >= (127 - zero_point - 0.5) * scale - 1e-9).all()

    def test_int16(self) -> None:
        tensor = vision.to_tensor(np.full((1, 1, 3), 255, np.uint8), dtype="int16", scale=1 / 32767, zero_point=0)
        assert tensor.dtype == np.int16
        assert (tensor == 32767).all()

    @given(pictures)
    def test_grey(self, picture: Any) -> None:
        real = (picture @ np.array([0.299, 0.587, 0.114])) / 255
        tensor = vision.to_tensor(picture, channels=1)
        assert (tensor.dtype, tensor.shape) == (np.float32, (1, *picture.shape[:2], 1))
        assert np.allclose(tensor[0, ..., 0], real, atol=1e-6)
        stored = vision.to_tensor(picture, channels=1, dtype="int8")
        assert np.abs(stored[0, ..., 0] - (real * 255 - 128)).max() <= 0.5 + 1e-6
        # a picture whose three channels are the same is as grey as one that has one
        one = picture[..., :1]
        three = one.repeat(3, axis=2)
        for dtype in ("int8", "uint8", "float32"):
            assert np.allclose(vision.to_tensor(three, channels=1, dtype=dtype), vision.to_tensor(one, dtype=dtype))
            assert (vision.to_tensor(one[..., 0], dtype=dtype) == vision.to_tensor(one, dtype=dtype)).all()
            assert (vision.to_tensor(one, channels=3, dtype=dtype) == vision.to_tensor(three, dtype=dtype)).all()

    def test_refusals(self) -> None:
        picture = np.zeros((2, 2, 3), np.uint8)
        with pytest.raises(ValueError, match="channels must be 1 or 3"):
            vision.to_tensor(picture, channels=2)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="shape"):
            vision.to_tensor(np.zeros((2, 2, 2), np.uint8))
        with pytest.raises(ValueError, match="no scale"):
            vision.to_tensor(picture, scale=1.0)
        with pytest.raises(ValueError, match="both scale and zero_point"):
            vision.to_tensor(picture, dtype="int8", scale=1.0)
        with pytest.raises(ValueError, match="both scale and zero_point"):
            vision.to_tensor(picture, dtype="int16")
        with pytest.raises(ValueError, match="positive"):
            vision.to_tensor(picture, dtype="int8", scale=0.0, zero_point=0)
        with pytest.raises(TypeError, match="float64"):
            vision.to_tensor(picture, dtype="float64")
        with pytest.raises(TypeError, match="float32"):
            vision.to_tensor(picture.astype(np.float32))
        with pytest.raises(TypeError, match="list"):
            vision.to_tensor([[1]])  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="shape"):
            vision.to_tensor(picture[None])
        with pytest.raises(TypeError, match="float32"):
            vision.dequantize(np.zeros(1, np.float32), 1.0, 0)


def blank(rows: int = 12, columns: int = 12, classes: int = 2) -> Any:
    grid = np.zeros((rows, columns, classes), np.float32)
    grid[..., 0] = 1
    return grid


def flood(mask: Any) -> int:
    """How many 8-connected groups a mask has, by spreading the highest number of each."""
    numbers = np.where(mask, np.arange(1, mask.size + 1).reshape(mask.shape), 0)
    for _ in range(mask.size):
        padded = np.pad(numbers, 1)
        around = [padded[r : r + mask.shape[0], c : c + mask.shape[1]] for r in range(3) for c in range(3)]
        numbers = np.where(mask, np.max(around, axis=0), 0)
    return len(set(numbers[mask].tolist()))


class TestCentroids:
    def test_nothing(self) -> None:
        assert vision.centroids(blank()) == []

    @given(st.integers(0, 11), st.integers(0, 11), st.floats(0.5, 1, width=32))
    def test_one_cell_is_its_middle(self, row: int, column: int, score: float) -> None:
        grid = blank()
        grid[row, column, 1] = score
        [found] = vision.centroids(grid[None])
        assert [found.x, found.y] == pytest.approx([column * 8 + 4, row * 8 + 4])
        assert found.score == pytest.approx(score)
        assert found.label == 1

    def test_neighbours_merge_weighted_by_score(self) -> None:
        grid = blank()
        grid[2, 2, 1], grid[3, 3, 1] = 0.6, 0.9
        [found] = vision.centroids(grid)
        middle = 8 * ((2.5 * 0.6 + 3.5 * 0.9) / 1.5)
        assert [found.x, found.y, found.score] == pytest.approx([middle, middle, 0.9])

    def test_a_gap_separates_and_the_best_comes_first(self) -> None:
        grid = blank()
        grid[2, 2, 1], grid[2, 4, 1] = 0.6, 0.9
        first, second = vision.centroids(grid, cell_px=10)
        assert (first.x, first.y, second.x, second.y) == (45, 25, 25, 25)

    def test_classes_do_not_merge_and_have_names(self) -> None:
        grid = blank(classes=3)
        grid[2, 2, 1], grid[2, 3, 2] = 0.9, 0.8
        found = vision.centroids(grid, labels=["background", "cat", "dog"])
        assert [d.label for d in found] == ["cat", "dog"]

    def test_the_background_is_never_found(self) -> None:
        assert vision.centroids(blank(), threshold=0.01) == []

    @given(hnp.arrays(np.int8, (6, 7, 3)), st.floats(0.05, 0.95))
    def test_quantised_equals_dequantised(self, grid: Any, threshold: float) -> None:
        real = vision.dequantize(grid, 1 / 256, -128)
        assert vision.centroids(grid, threshold=threshold, scale=1 / 256, zero_point=-128) == vision.centroids(
            real, threshold=threshold
        )

    @given(hnp.arrays(np.float32, (6, 7, 2), elements=st.floats(0, 1, width=32)), st.floats(0.05, 1))
    def test_each_group_lies_within_its_cells(self, grid: Any, threshold: float) -> None:
        found = vision.centroids(grid, threshold=threshold)
        active = grid[..., 1] >= threshold
        assert bool(found) == bool(active.any())
        assert len(found) == flood(active)
        rows, columns = np.nonzero(active)
        for d in found:
            assert columns.min() * 8 + 4 - 1e-6 <= d.x <= columns.max() * 8 + 4 + 1e-6
            assert rows.min() * 8 + 4 - 1e-6 <= d.y <= rows.max() * 8 + 4 + 1e-6
        assert [d.score for d in found] == sorted((d.score for d in found), reverse=True)

    @given(hnp.arrays(np.float32, (5, 8, 2), elements=st.sampled_from([np.float32(0), np.float32(0.75)])))
    def test_mirrored_grid_gives_mirrored_places(self, grid: Any) -> None:
        straight = {(round(d.x, 6), round(d.y, 6)) for d in vision.centroids(grid)}
        mirrored = {(round(64 - d.x, 6), round(d.y, 6)) for d in vision.centroids(grid[:, ::-1])}
        assert straight == mirrored

    def test_refusals(self) -> None:
        with pytest.raises(ValueError, match="shape"):
            vision.centroids(np.zeros((2, 12, 12, 2), np.float32))
        with pytest.raises(ValueError, match="shape"):
            vision.centroids(np.zeros((12, 12, 1), np.float32))
        with pytest.raises(ValueError, match="threshold"):
            vision.centroids(blank(), threshold=0)
        with pytest.raises(ValueError, match="cell_px"):
            vision.centroids(blank(), cell_px=0)
        with pytest.raises(ValueError, match=r"2 channels .* 1 labels"):
            vision.centroids(blank(), labels=["digit"])
        with pytest.raises(ValueError, match="both scale and zero_point"):
            vision.centroids(np.zeros((12, 12, 2), np.int8))
        with pytest.raises(ValueError, match="no scale"):
            vision.centroids(blank(), scale=1.0, zero_point=0)
        with pytest.raises(ValueError, match="NaN"):
            vision.centroids(np.full((1, 1, 2), np.nan, np.float32))
        with pytest.raises(TypeError, match="bool"):
            vision.centroids(np.zeros((1, 1, 2), np.bool_))


class TestFiles:
    @pytest.fixture(autouse=True)
    def _pillow(self) -> None:
        self.image = pytest.importorskip("PIL.Image", reason="Pillow (the extra 'vision') is not installed")

    def save(self, path: Path, array: Any) -> Path:
        self.image.fromarray(array).save(path)
        return path

    def test_the_right_size_stays_as_it_is(self, tmp_path: Path) -> None:
        pixels = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
        assert (vision.load_picture(self.save(tmp_path / "a.png", pixels)) == pixels).all()

    def test_the_middle_is_kept(self, tmp_path: Path) -> None:
        pixels = np.zeros((100, 300, 3), np.uint8)
        pixels[:, 100:200] = (200, 100, 50)
        out = vision.load_picture(self.save(tmp_path / "a.png", pixels), width=32, height=32)
        assert out.shape == (32, 32, 3)
        assert (out == (200, 100, 50)).all()

    def test_another_shape(self, tmp_path: Path) -> None:
        out = vision.load_picture(self.save(tmp_path / "a.png", np.zeros((50, 50, 3), np.uint8)), width=20, height=10)
        assert out.shape == (10, 20, 3)

    def test_grey_becomes_three_channels(self, tmp_path: Path) -> None:
        out = vision.load_picture(self.save(tmp_path / "a.png", np.full((9, 9), 77, np.uint8)), width=9, height=9)
        assert (out == 77).all()
        assert out.shape == (9, 9, 3)

    def test_the_cameras_turn_is_obeyed(self, tmp_path: Path) -> None:
        pixels = np.zeros((64, 64, 3), np.uint8)
        pixels[:32] = 255
        image = self.image.fromarray(pixels)
        exif = image.getexif()
        exif[0x0112] = 3  # upside down
        image.save(tmp_path / "a.png", exif=exif)
        out = vision.load_picture(tmp_path / "a.png", width=64, height=64)
        assert (out[:32] == 0).all()
        assert (out[32:] == 255).all()

    def test_refusals(self, tmp_path: Path) -> None:
        (tmp_path / "a.png").write_bytes(b"not a picture")
        with pytest.raises(ValueError, match="not a picture"):
            vision.load_picture(tmp_path / "a.png")
        with pytest.raises(FileNotFoundError):
            vision.load_picture(tmp_path / "none.png")
        with pytest.raises(ValueError, match="8 bits"):
            vision.load_picture(self.save(tmp_path / "b.png", np.zeros((9, 9), np.uint16)))
        with pytest.raises(ValueError, match="width"):
            vision.load_picture(tmp_path / "a.png", width=0)

    def test_a_huge_picture_is_refused_before_it_is_unpacked(self, tmp_path: Path, monkeypatch: Any) -> None:
        monkeypatch.setattr(vision, "_MAX_PIXELS", 99)
        with pytest.raises(ValueError, match=r"\(10, 10\) is over 99 pixels"):
            vision.load_picture(self.save(tmp_path / "a.png", np.zeros((10, 10, 3), np.uint8)))

    def test_draw_marks_the_place_and_leaves_the_rest(self) -> None:
        picture = np.full((96, 96, 3), 128, np.uint8)
        plain = np.asarray(vision.draw(picture, [], zoom=2))
        assert plain.shape == (192, 192, 3)
        assert (plain == 128).all()
        found = vision.Detection(x=48.0, y=48.0, score=0.9, label="digit")
        marked = np.asarray(vision.draw(picture, [found], zoom=2))
        rows, columns = np.nonzero((marked != 128).any(2))
        assert rows.min() >= 96 - 48
        assert rows.max() <= 96 + 24
        assert columns.min() <= 96 - 12
        assert columns.max() >= 96 + 12
        assert (marked[96, 96] == 128).all()

    @given(st.floats(0, 96), st.floats(0, 96), st.integers(1, 5))
    def test_draw_anywhere(self, x: float, y: float, zoom: int) -> None:
        found = [vision.Detection(x=x, y=y, score=0.5, label=1)]
        out = vision.draw(np.zeros((96, 96, 3), np.uint8), found, zoom=zoom)
        assert out.size == (96 * zoom, 96 * zoom)
        assert np.asarray(out).any()

    def test_draw_refusals(self) -> None:
        with pytest.raises(ValueError, match="zoom"):
            vision.draw(np.zeros((4, 4, 3), np.uint8), [], zoom=0)
        with pytest.raises(TypeError, match="int64"):
            vision.draw(np.zeros((4, 4, 3), np.int64), [])


def test_without_pillow_the_extra_is_named(monkeypatch: Any) -> None:
    real = builtins.__import__

    def no_pillow(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] == "PIL":
            raise ModuleNotFoundError("No module named 'PIL'", name="PIL")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_pillow)
    with pytest.raises(MissingDependencyError, match=r"splitiot\[vision\]"):
        vision.load_picture("any.png")
    with pytest.raises(MissingDependencyError, match=r"splitiot\[vision\]"):
        vision.draw(np.zeros((4, 4, 3), np.uint8), [])
