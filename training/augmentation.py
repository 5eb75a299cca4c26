"""Random changes to training frames, drawn once per clip and the same for all its frames.

A flip or brightness that differed from frame to frame would look like motion. Frames stay uint8 at
the crop's size: augmentation comes before the processor's resize and normalisation, which are never random.
"""

import math
from dataclasses import dataclass, fields

import cv2
import numpy as np
import torch
from torchvision.transforms import v2 as transforms

from ..processor.input_errors import RecipeError

_LIMITS = {"rotation_deg": 180, "padding_px": 64}  # of all others: 1


@dataclass(frozen=True)
class Augmentation:
    """The strength of each change; 0 turns it off."""

    flip: float = 0.0  # probability of a mirror image
    rotation_deg: float = 0.0  # uniform in +-
    shift: float = 0.0  # of the picture's width and height, uniform in +-
    zoom: float = 0.0  # scale uniform in 1 +- zoom
    brightness: float = 0.0  # factor uniform in 1 +- brightness
    contrast: float = 0.0
    saturation: float = 0.0
    erasing: float = 0.0  # probability that one rectangle (2 to 20 % of the picture) turns grey
    padding_px: int = 0  # pixels of the stored picture added on each side before a crop to the original size
    crop_area: float = 0.0  # smallest share of the area that a crop keeps, at 3:4 to 4:3; the crop is resized back

    @classmethod
    def from_recipe(cls, values: dict[str, float]) -> "Augmentation":
        """Raises RecipeError for an unknown name or a value outside 0..1 (rotation: 0..180, padding: 0, 1, .. 64)."""
        known = {field.name for field in fields(cls)}
        for name, value in values.items():
            kind = int if name == "padding_px" else (int, float)
            is_number = isinstance(value, kind) and not isinstance(value, bool)
            if name not in known or not is_number or not 0 <= value <= _LIMITS.get(name, 1):
                raise RecipeError(
                    f"The augmentation {name}: {value} is unknown or out of range; known are "
                    f"{', '.join(sorted(known))}, each in 0..1 (rotation_deg in 0..180, padding_px a whole number in "
                    "0..64)."
                )
        shares = {name: value for name, value in values.items() if name != "padding_px"}
        return cls(**shares, padding_px=int(values.get("padding_px", 0)))

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        """frames: (batch, num_frames, C, H, W) uint8 → the same shape and type; draws from torch's generator."""
        if self.padding_px or self.crop_area:
            frames = self._crop(frames.float()).clamp_(0, 255).round_().to(torch.uint8)
        # OpenCV takes a tenth of torch's time on a CPU.
        clips = np.ascontiguousarray(frames.permute(0, 1, 3, 4, 2).numpy())  # (b, t, C, H, W) -> (b, t, H, W, C)
        if self.flip or self.rotation_deg or self.shift or self.zoom:
            clips = self._move(clips)
        if self.brightness or self.contrast or self.saturation:
            clips = self._recolour(clips)
        changed = torch.from_numpy(clips).permute(0, 1, 4, 2, 3)  # (b, t, H, W, C) -> (b, t, C, H, W)
        return self._erase(changed) if self.erasing else changed

    def _crop(self, pixels: torch.Tensor) -> torch.Tensor:
        """torchvision's random crops, each drawn once per clip; (batch, frames, C, H, W) keeps its shape."""
        size = list(pixels.shape[-2:])
        if self.padding_px:
            # Padded with each clip's mean colour: Nezami et al. pad with zeros after subtracting the picture's mean.
            mean = pixels.mean(dim=(1, 3, 4), keepdim=True)  # (batch, frames, C, H, W) -> (batch, 1, C, 1, 1)
            crop = transforms.RandomCrop(size, padding=self.padding_px)
            pixels = torch.stack([crop(clip) for clip in pixels - mean]) + mean
        if self.crop_area:
            crop = transforms.RandomResizedCrop(size, scale=(self.crop_area, 1.0))
            pixels = torch.stack([crop(clip) for clip in pixels])
        return pixels

    def _move(self, clips: np.ndarray) -> np.ndarray:
        """Flip, rotation, shift and zoom as one resampling; pixels from outside the picture repeat its edge."""
        batch, _, height, width, _ = clips.shape
        mirror = 1 - 2 * (torch.rand(batch) < self.flip).float()
        angle = _uniform(batch, self.rotation_deg) * math.pi / 180
        scale = 1 + _uniform(batch, self.zoom)
        cos, sin = angle.cos() * scale, angle.sin() * scale
        shift_x, shift_y = 2 * _uniform(batch, self.shift), 2 * _uniform(batch, self.shift)
        rows = torch.stack((cos * mirror, -sin, shift_x, sin * mirror, cos, shift_y), dim=1).double()
        # Converts pixel coordinates (whole numbers at the centres) to -1..1, in which the moves are drawn.
        to_unit = np.array([[2 / width, 0, 1 / width - 1], [0, 2 / height, 1 / height - 1], [0, 0, 1]])
        moved = np.empty_like(clips)
        for clip, into, row in zip(clips, moved, rows, strict=True):
            matrix = np.vstack([row.view(2, 3).numpy(), [0, 0, 1]])
            matrix = (np.linalg.inv(to_unit) @ matrix @ to_unit)[:2]
            for frame, place in zip(clip, into, strict=True):
                flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
                place[:] = cv2.warpAffine(frame, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
        return moved

    def _recolour(self, clips: np.ndarray) -> np.ndarray:
        """Brightness, contrast about the clip's mean and saturation as one change of each pixel's three numbers."""
        batch, num_channels = len(clips), clips.shape[-1]
        light, contrast, colour = (
            (1 + _uniform(batch, strength)).tolist() if strength else [1.0] * batch
            for strength in (self.brightness, self.contrast, self.saturation)
        )
        grey = np.full((num_channels, num_channels), 1 / num_channels)
        changed = []
        for clip, light_of, contrast_of, colour_of in zip(clips, light, contrast, colour, strict=True):
            pixels = clip.reshape(-1, clip.shape[-2], num_channels)  # (t, H, W, C) -> (t*H, W, C)
            mean = light_of * np.mean(cv2.mean(pixels)[:num_channels])
            mixed = grey + (np.eye(num_channels) - grey) * colour_of
            matrix = np.hstack([mixed * light_of * contrast_of, np.full((num_channels, 1), mean * (1 - contrast_of))])
            changed.append(cv2.transform(pixels, matrix).reshape(clip.shape))
        return np.stack(changed)

    def _erase(self, pixels: torch.Tensor) -> torch.Tensor:
        height, width = pixels.shape[-2:]
        pixels = pixels.clone()
        for clip in (torch.rand(len(pixels)) < self.erasing).nonzero().flatten().tolist():
            area, ratio = torch.empty(2).uniform_(0, 1).tolist()
            side = math.sqrt(0.02 + 0.18 * area)
            rows = max(1, min(height, round(height * side * (0.6 + 0.8 * ratio))))
            columns = max(1, min(width, round(width * side / (0.6 + 0.8 * ratio))))
            top = int(torch.randint(height - rows + 1, ()))
            left = int(torch.randint(width - columns + 1, ()))
            pixels[clip, :, :, top : top + rows, left : left + columns] = 127.0
        return pixels


def _uniform(count: int, half_width: float) -> torch.Tensor:
    """(count,) in +- half_width."""
    return (torch.rand(count) * 2 - 1) * half_width
