"""Boxes in pictures, for TensorBoard."""

from __future__ import annotations

import torch

from launcher.answers.colours import colour_of


def visible(images: torch.Tensor) -> torch.Tensor:
    """(N, C, H, W), each stretched to 0..1, on the CPU."""
    images = images.detach().float().cpu()
    low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
    return (images - low) / (high - low).clamp_min(1e-6)


def with_boxes(images: torch.Tensor, boxes: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Images (N, 3, H, W) in 0..1, and the outlines of boxes (N, k, 4) in pixels, each in the colour of its label (N, k), -1: none."""
    drawn = images.clone()
    height, width = images.shape[-2:]
    for image, of_image, of_box in zip(drawn, boxes.detach().cpu().round().long(), labels.tolist(), strict=True):
        for (left, top, right, bottom), label in zip(of_image.tolist(), of_box, strict=True):
            if label < 0:
                continue
            left, right = (min(max(edge, 0), width - 1) for edge in (left, right))
            top, bottom = (min(max(edge, 0), height - 1) for edge in (top, bottom))
            colour = torch.tensor(colour_of(label))[:, None]
            image[:, [top, bottom], left : right + 1] = colour[..., None]
            image[:, top : bottom + 1, [left, right]] = colour[..., None]
    return drawn
