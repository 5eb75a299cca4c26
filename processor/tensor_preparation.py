"""The transformers processors' steps with torch: the same as in `face_preparation`, with torch's arithmetic.

Prepared data and every model's logits depend on its last bit. Without torch, crops may differ by a grey level because
of rounding.
"""

from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from .call_settings import to_device
from .face_cropping import Sampler
from .face_preparation import FacePreparation, require_contrast


class TensorPreparation(FacePreparation):
    """Mixin, to be listed before the base that prepares clips or pictures, and transformers' base."""

    def on_device(self, device: torch.device | str) -> Self:
        """Like `FacePreparation.on_device`; raises EngagementInputError if the device does not exist."""
        return super().on_device(to_device(device))

    def to_dict(self) -> Any:  # as in transformers: a dictionary with any setting
        """The content of the saved config: all settings, but nothing about this machine."""
        settings = super().to_dict()  # type: ignore[misc]  # defined in the processors' other base
        for name in ("device", "reader"):
            settings.pop(name, None)
        if not self.as_played:  # the config of a model that is older than this setting stays unchanged to the last byte
            settings.pop("as_played", None)
        return settings

    @property
    def sampler(self) -> Sampler:
        """Like `FacePreparation.sampler`."""
        return sample_by_torch

    def to_pixel_values(self, frames: np.ndarray) -> torch.Tensor:
        """Like `FacePreparation.to_pixel_values`; a tensor on `device`."""
        pixels = self.to_model_size(frames)
        if self.do_grayscale:
            pixels = transforms.rgb_to_grayscale(pixels)
        pixels = pixels.to(torch.float32, copy=True)  # modified in place below
        if self.do_rescale:
            pixels *= self.rescale_factor
        if self.picture_norm is not None:
            pixels -= pixels.mean(dim=(1, 2, 3), keepdim=True)
            lengths = pixels.flatten(1).norm(dim=1)
            require_contrast(lengths.numpy())
            pixels *= (self.picture_norm / lengths)[:, None, None, None]
        if self.do_normalize:
            pixels -= torch.tensor(self.image_mean[: pixels.shape[1]])[:, None, None]
            pixels /= torch.tensor(self.image_std[: pixels.shape[1]])[:, None, None]
        return pixels if self.device is None else pixels.to(self.device)

    def to_model_size(self, frames: np.ndarray) -> torch.Tensor:
        """(num_frames, height, width, 3) -> (num_frames, 3, size, size), uint8."""
        size = (self.size["height"], self.size["width"])
        frames = np.require(frames, requirements=["C", "W"])  # torch does not accept read-only arrays, such as PIL's
        pixels = torch.from_numpy(frames).permute(0, 3, 1, 2)  # (t, H, W, C) -> (t, C, H, W)
        if pixels.shape[-2:] == size or not self.do_resize:
            return pixels
        return transforms.resize(pixels, list(size), InterpolationMode.BILINEAR, antialias=True)

    def resize_frames(self, frames: np.ndarray, width_px: int, height_px: int) -> np.ndarray:
        """Like `FacePreparation.resize_frames`."""
        pixels = torch.from_numpy(frames).permute(0, 3, 1, 2)  # (t, H, W, C) -> (t, C, H, W)
        pixels = transforms.resize(pixels, [height_px, width_px], InterpolationMode.BILINEAR, antialias=True)
        return pixels.permute(0, 2, 3, 1).numpy()  # (t, C, H, W) -> (t, H, W, C)


def sample_by_torch(window: np.ndarray, transform: np.ndarray, crop_size_px: int) -> np.ndarray:
    """Like `face_cropping.sample_bilinear`."""
    pixels = torch.from_numpy(window).permute(2, 0, 1)[None].float()  # (h, w, 3) -> (1, 3, h, w)
    theta = _normalised(transform, crop_size_px, window.shape[1], window.shape[0])
    grid = F.affine_grid(theta, [1, 3, crop_size_px, crop_size_px], align_corners=False)  # (1, crop, crop, 2)
    crop = F.grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return crop[0].permute(1, 2, 0).round().to(torch.uint8).contiguous().numpy()  # (1, 3, s, s) -> (s, s, 3)


def _normalised(transform: np.ndarray, crop_size_px: int, width_px: int, height_px: int) -> torch.Tensor:
    """A transform in pixels -> the (1, 2, 3) theta of affine_grid, whose coordinates run from -1 to 1 on both axes."""
    to_pixels = np.array([[crop_size_px / 2, 0, crop_size_px / 2], [0, crop_size_px / 2, crop_size_px / 2], [0, 0, 1]])
    from_pixels = np.array([[2 / width_px, 0, -1], [0, 2 / height_px, -1], [0, 0, 1]])
    theta = from_pixels @ np.vstack([transform, [0, 0, 1]]) @ to_pixels
    return torch.from_numpy(theta[None, :2]).float()
