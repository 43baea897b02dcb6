"""Small synthetic annotations: discs as masks, in the layout of the paper."""

from pathlib import Path

import cv2
import numpy as np

from cellular.preparing.objects import CellObject

ROOT = Path(__file__).resolve().parents[2]
SIDE = 96


def disc(y: int, x: int, radius: int = 8, side: int = SIDE) -> np.ndarray:
    """Return a round object, (side, side) bool."""
    rows, columns = np.ogrid[:side, :side]
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


def write_png(path: Path, image: np.ndarray) -> Path:
    """Write an image, grey or in the order R, G, B, as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image[..., ::-1] if image.ndim == 3 else image)
    return path


def coloured(mask: np.ndarray, colour: tuple[int, int, int] = (0, 0, 7)) -> np.ndarray:
    """Return a mask, (H, W) bool, as a colour image, (H, W, 3) uint8, as in the data set."""
    return mask[..., None] * np.array(colour, np.uint8)


def on_frame(item: CellObject) -> np.ndarray:
    """Return an object's mask on its full frame, (H, W) bool."""
    mask = np.zeros(item.frame, bool)
    mask[item.place] = item.mask
    return mask


class Annotations:
    """A folder of masks in the paper's layout and one of images, with methods to fill them."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.masks, self.images = folder / "masks", folder / "images"
        self.out = folder / "out"
        for path in (self.masks, self.images):
            path.mkdir(parents=True)

    def image(self, field: str, side: int = SIDE, suffix: str = ".png") -> Path:
        noise = np.random.default_rng(len(field)).integers(0, 255, (side, side, 3), np.uint8)
        return write_png(self.images / f"{field}{suffix}", noise)

    def object(self, field: str, class_name: str, name: str, mask: np.ndarray) -> Path:
        return write_png(self.masks / field / class_name / f"{name}.png", coloured(mask))

    def field(self, field: str, **classes: int) -> None:
        """Write an image and, by class, some discs that touch nothing."""
        self.image(field)
        places = [(y, x) for y in range(12, SIDE - 8, 20) for x in range(12, SIDE - 8, 20)]
        for class_name, count in classes.items():
            for number in range(1, count + 1):
                self.object(field, class_name, f"cell_{number}", disc(*places.pop(0)))

    def three_splits(self) -> "Annotations":
        """Write one field for each split, by the paper's patterns."""
        for name in ("a_ST_D01_s1", "a_ST_I06_s1", "a_ST_C03_s1"):
            self.field(name, fed=6, unfed=5, Unidentified=2)
        return self
