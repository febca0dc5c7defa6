"""What attribution needs of a video model: the seam between diffusers' families and everything else.

A family is one file with one subclass of `Backbone`. It loads one component at a time, so that the VAE
and the text encoder are gone from memory before gradients begin. Shapes: latents are `(C, F, H, W)`
without a batch axis, float32; noise and loss live in float32 whatever the model's dtype.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from motive.backbones.device import find_device
from motive.backbones.source import ComponentKind, ModelSource
from motive.clips.sampling import FrameSampler
from motive.errors import UserError
from motive.runs.stage import Resources

if TYPE_CHECKING:
    import torch


class Backbone(ABC):
    """One diffusers video model.

    source: where its files are.
    dtype: of the denoiser's weights and activations (`float32`, `bfloat16`, `float16`), or `auto`:
        bfloat16 on CUDA, float32 elsewhere. The VAE is float32.
    device: where components are put: `cpu`, `cuda`, `cuda:1`, `mps`, or `auto`: CUDA where there is
        one, else the CPU.
    text_dtype: of the text encoder, or `auto`: bfloat16 on CUDA, where it would not fit otherwise, else
        float32.
    threads: of the CPU; None leaves torch's own choice.

    torch's own objects are taken for `dtype` and `device` too. Making a backbone imports neither torch
    nor diffusers: a run that has everything already asks only what the model's configurations say.
    """

    family: ClassVar[str]
    pipeline_classes: ClassVar[tuple[str, ...]]  # `_class_name` in model_index.json
    components: ClassVar[Mapping[str, ComponentKind]]
    # Components that a model of the family has only when its model_index.json names them.
    optional: ClassVar[frozenset[str]] = frozenset()
    # Patterns (`fnmatch`) of parameters that the training loss does not reach, with the reason. `{last}`
    # stands for the number of the last block.
    unreached: ClassVar[Mapping[str, str]] = {}
    # Pattern (`fnmatch`) of the parameters that the family's own training changes.
    trained: ClassVar[str] = "*"
    # Hub ids of the published models, with the number of the denoiser's parameters.
    published: ClassVar[Mapping[str, int]] = {}
    tested: ClassVar[str] = ""  # what was tried and how, in a sentence for `motive backbones`

    denoiser: str  # the component that is fine-tuned; of several, the one that `settle` chose

    def __init__(
        self,
        source: ModelSource,
        dtype: "str | torch.dtype" = "auto",
        device: "str | torch.device" = "auto",
        *,
        text_dtype: str = "auto",
        threads: int | None = None,
    ) -> None:
        self.source = source
        self._dtype, self._text_dtype = str(dtype).removeprefix("torch."), text_dtype
        self._device, self._threads = str(device), threads

    def __getstate__(self) -> dict[str, Any]:
        """For a worker on another machine: the precision is settled here, the device is found there."""
        settled = {"_dtype": self.dtype_name, "_text_dtype": self.text_dtype_name}
        return {k: v for k, v in self.__dict__.items() if k != "device"} | settled

    # Where and in which precision it runs.

    @property
    def resources(self) -> Resources:
        """What a worker takes in which one of its components runs."""
        return Resources(self._device, self._threads or 1)

    @cached_property
    def device(self) -> "torch.device":
        """The device, ready to be used with the number of threads that was asked for.

        Raises UserError when it is not there.
        """
        import torch

        if self._threads is not None:
            torch.set_num_threads(self._threads)
        return find_device(self._device)

    @property
    def dtype_name(self) -> str:
        """Of the denoiser, as in `float32`."""
        return self._suited_to_device() if self._dtype == "auto" else self._dtype

    @property
    def text_dtype_name(self) -> str:
        """Of the text encoder, as in `float32`."""
        return self._suited_to_device() if self._text_dtype == "auto" else self._text_dtype

    @property
    def dtype(self) -> "torch.dtype":
        """Of the denoiser."""
        import torch

        return getattr(torch, self.dtype_name)

    def text_dtype(self) -> "torch.dtype":
        """Of the text encoder."""
        import torch

        return getattr(torch, self.text_dtype_name)

    def _suited_to_device(self) -> str:
        # Asked without torch where the name alone tells.
        kind = self.device.type if self._device == "auto" else self._device.partition(":")[0]
        return "bfloat16" if kind == "cuda" else "float32"

    # What the model is, without loading weights.

    def require_components(self, *, weights: bool = True) -> None:
        """Check that the model's folder has every component, each with its files.

        weights: False is content with configurations.

        Raises UserError, naming what is missing.
        """
        for component, kind in self.components.items():
            if component in self.optional and not self.source.names(component):
                continue
            self.source.require(component, kind, weights=weights)

    def settle(self, timesteps: tuple[float, ...]) -> str:
        """Choose the `denoiser`, where a model has several and the timestep decides, and return it.

        Raises UserError when these timesteps are not all one network's: gradients of two networks are
        two feature spaces.
        """
        return self.denoiser

    @abstractmethod
    def empty_denoiser(self) -> "torch.nn.Module":
        """The denoiser on the `meta` device: every name, shape, dtype and operation, and no number.

        Raises UserError when its configuration makes no model.
        """

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every parameter of the denoiser."""
        return {name: tuple(p.shape) for name, p in self.empty_denoiser().named_parameters()}

    @abstractmethod
    def size_multiples(self) -> tuple[int, int]:
        """Height and width of a clip must be multiples of these, in pixels."""

    @abstractmethod
    def default_sampler(self) -> FrameSampler:
        """The frames, size and lengths that the model was made for."""

    def longest_clip(self) -> int | None:
        """Frames that the model takes at most; None where there is no limit."""
        return None

    @abstractmethod
    def default_timestep(self) -> int:
        """The mid-point of the model's own sampling trajectory, 1..1000 (paper, section 4: t_fix)."""

    @abstractmethod
    def default_prompt_length(self) -> int:
        """Tokens that captions are padded to, as the pipeline's `__call__` pads them."""

    @abstractmethod
    def spatial_stride(self) -> int:
        """Pixels to a latent cell, in height and width."""

    @abstractmethod
    def frame_map(self, frames: int) -> list[range]:
        """The pixel frames that each latent frame covers, for a clip of `frames` frames."""

    def example_inputs(
        self, frames: int, height: int, width: int, prompt_length: int
    ) -> "tuple[torch.Tensor, dict[str, torch.Tensor]]":
        """Latents and conditions as `encode_video` and `encode_text` give them: zeros, on the device.

        For counting what a clip costs; the device may be `meta`.

        Raises UserError when the family cannot say.
        """
        raise self.unknown_cost()

    def unknown_cost(self) -> UserError:
        """What is said of a family that gives no example inputs."""
        return UserError(
            f"what a clip costs is not known for the family {self.family} yet: "
            "run motive curate on a few clips and see motive info"
        )

    # Encoding. `load_*` may be called again after `unload`.

    @abstractmethod
    def load_vae(self) -> None:
        """Make `encode_video` ready."""

    @abstractmethod
    def encode_video(self, frames_fhw3: np.ndarray) -> "dict[str, torch.Tensor]":
        """What the model takes from a clip of RGB uint8 frames, without a batch axis, float32.

        `latents`: normalised, `(C, F, H, W)`, the posterior's mean, or a draw after `sample_posterior`.
        Beside them, under names of the family's own, what the denoiser is conditioned on: an
        image-to-video model's first frame. That is the mean's, unless it is the clip's own latent frame 0.
        """

    def sample_posterior(self, noise: "Callable[[tuple[int, ...]], torch.Tensor]") -> None:
        """From now on `encode_video` draws latents: the posterior's mean + its standard deviation · noise.

        noise: of a shape `(C, F, H, W)`, standard normal, always the same for the same shape.

        Raises UserError when the family gives the mean only.
        """
        raise UserError(
            f"latents of the family {self.family} are the posterior's mean only: use --posterior mean"
        )

    @abstractmethod
    def load_text_encoder(self) -> None:
        """Make `encode_text` ready."""

    @abstractmethod
    def encode_text(self, caption: str, prompt_length: int) -> "dict[str, torch.Tensor]":
        """The caption as the pipeline's `__call__` encodes it, by names of the family's own.

        Without a batch axis, float32, and without the padding where that can be put back exactly.
        """

    @abstractmethod
    def unload(self) -> None:
        """Forget every loaded component."""

    # The training objective. A timestep is 1..1000; a trainer's (`motive.gradients.trainers`) need not be
    # whole, and what `predict` is told may be another number than the noise was added by.

    @abstractmethod
    def load_denoiser(self) -> "torch.nn.Module":
        """The network that is fine-tuned, in eval mode, on the device."""

    @abstractmethod
    def add_noise(
        self, latents_cfhw: "torch.Tensor", noise_cfhw: "torch.Tensor", timestep: float
    ) -> "torch.Tensor":
        """z(t, ε) = α_t h + σ_t ε (paper, section 3.1)."""

    @abstractmethod
    def target(
        self, latents_cfhw: "torch.Tensor", noise_cfhw: "torch.Tensor", timestep: float
    ) -> "torch.Tensor":
        """What the denoiser is trained to predict."""

    @abstractmethod
    def predict(
        self,
        denoiser: "torch.nn.Module",
        noisy_cfhw: "torch.Tensor",
        timestep: float,
        conditions: "Mapping[str, torch.Tensor]",
        prompt_length: int,
    ) -> "torch.Tensor":
        """The denoiser's prediction, float32, of the shape of `noisy_cfhw`; calls it exactly once.

        conditions: what `encode_text` gave, and `encode_video` beside the latents.
        """

    def loss_weights(self, latents_cfhw: "torch.Tensor") -> "torch.Tensor | None":
        """Where the training loss counts, `(F, H, W)`: 0 for a latent frame that is given, else 1.

        None: everywhere.
        """
        return None
