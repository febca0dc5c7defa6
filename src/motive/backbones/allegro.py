"""Allegro, text-to-video.

A diffusion transformer that predicts ε, or v where the scheduler says so. Captions are cleaned as the
pipeline does by default, which needs beautifulsoup4.

Its VAE is not causal: latent frame k covers pixel frames 4k … 4k + 3. It encodes tiles of 24 frames and of
`sample_size` pixels (320), 16 frames, 200 rows and 240 columns apart, blended where they overlap. What
they do not reach would stay empty, so a clip must be covered exactly: 88 frames of 720 × 1280 are.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from motive.backbones.diffusion import DiffusionBackbone
from motive.backbones.frames import recommended_sampler
from motive.backbones.text import padded
from motive.clips.sampling import FrameSampler
from motive.errors import ClipError, UserError

if TYPE_CHECKING:
    import torch

TILE_FRAMES, TILE_STEP = 24, 16
PROMPT_LENGTH = 512


class AllegroBackbone(DiffusionBackbone):
    family = "allegro"
    title = "Allegro"
    pipeline_classes = ("AllegroPipeline",)
    published = {  # noqa: RUF012  (as the next)
        "rhymes-ai/Allegro": 2_771_907_856,
    }
    denoiser = "transformer"
    denoiser_class = "AllegroTransformer3DModel"
    vae_class = "AutoencoderKLAllegro"
    components = {  # noqa: RUF012  (declared as a ClassVar in the base class)
        "transformer": "network",
        "vae": "network",
        "text_encoder": "network",
        "tokenizer": "tokenizer",
        "scheduler": "settings",
    }

    # What the model is.

    def spatial_stride(self) -> int:
        return 2 ** (len(self.setting("vae", "block_out_channels", (0, 0, 0, 0))) - 1)

    def _temporal_stride(self) -> int:
        return int(self.setting("vae", "temporal_compression_ratio", 4.0))

    def size_multiples(self) -> tuple[int, int]:
        multiple = self.spatial_stride() * int(self.setting(self.denoiser, "patch_size", 2))
        return multiple, multiple

    def default_sampler(self) -> FrameSampler:
        stride = self.spatial_stride()
        return recommended_sampler(
            self.source,
            self.setting(self.denoiser, "sample_frames", 22) * self._temporal_stride(),
            self.setting(self.denoiser, "sample_height", 90) * stride,
            self.setting(self.denoiser, "sample_width", 160) * stride,
            length_step=TILE_STEP,
            length_offset=TILE_FRAMES,
        )

    def default_prompt_length(self) -> int:
        return min(PROMPT_LENGTH, int(self.setting("tokenizer", "model_max_length", PROMPT_LENGTH)))

    def frame_map(self, frames: int) -> list[range]:
        stride = self._temporal_stride()
        if frames < 1 or frames % stride:
            raise ValueError(f"{frames} frames are not {stride}k: the VAE would drop some")
        return [range(f, f + stride) for f in range(0, frames, stride)]

    def condition_shapes(
        self, latents_cfhw: tuple[int, ...], prompt_length: int
    ) -> dict[str, tuple[int, ...]]:
        return {"text": (prompt_length, int(self.setting(self.denoiser, "caption_channels", 4096)))}

    # Encoding.

    def load_vae(self) -> None:
        super().load_vae()
        self._vae.enable_tiling()  # it has no other way to encode

    def encode_pixels(self, video_bcfhw: "torch.Tensor") -> "dict[str, torch.Tensor]":
        tiles = zip(video_bcfhw.shape[2:], self._vae.kernel, self._vae.stride, strict=True)
        if any(extent < size or (extent - size) % step for extent, size, step in tiles):
            (_, rows, columns), (_, row_step, column_step) = self._vae.kernel, self._vae.stride
            raise ClipError(
                f"frames must be {TILE_FRAMES} + {TILE_STEP}k, "
                f"height {rows} + {row_step}k and width {columns} + {column_step}k pixels"
            )
        scale = float(self._vae.config.scaling_factor)
        return {"latents": scale * self.latents_of(self._vae.encode(video_bcfhw).latent_dist)}

    def load_text_encoder(self) -> None:
        from diffusers import AllegroPipeline
        from diffusers.utils import is_bs4_available
        from transformers import T5EncoderModel

        if not is_bs4_available():
            raise UserError(
                f"{self.source.name} cleans captions with beautifulsoup4, which is not installed: "
                "pip install beautifulsoup4"
            )
        # The pipeline's own method cleans, tokenises and encodes, so ours cannot drift from it.
        self._text = AllegroPipeline(
            tokenizer=self.tokenizer(),
            text_encoder=self.text_model(T5EncoderModel),
            vae=None,
            transformer=None,
            scheduler=None,
        )

    def encode_text(self, caption: str, prompt_length: int) -> "dict[str, torch.Tensor]":
        import torch

        assert self._text is not None, "load_text_encoder first"
        with torch.no_grad():
            text_bld, mask_bl, _, _ = self._text.encode_prompt(
                caption,
                do_classifier_free_guidance=False,
                device=self.device,
                clean_caption=True,
                max_sequence_length=prompt_length,
            )
        return {"text": text_bld[0, : int(mask_bl.sum())].float()}

    # The training objective.

    def predict(
        self,
        denoiser: "torch.nn.Module",
        noisy_cfhw: "torch.Tensor",
        timestep: float,
        conditions: "Mapping[str, torch.Tensor]",
        prompt_length: int,
    ) -> "torch.Tensor":
        import torch

        text_ld = conditions["text"]
        mask_l = padded(text_ld.new_ones(len(text_ld)), prompt_length)
        output_bcfhw = denoiser(
            hidden_states=noisy_cfhw[None].to(self.device, self.dtype),
            encoder_hidden_states=padded(text_ld, prompt_length)[None, None].to(
                self.device, self.dtype
            ),
            encoder_attention_mask=mask_l[None].to(self.device, self.dtype),
            timestep=self.index(timestep),
            image_rotary_emb=self._rotary(*noisy_cfhw.shape[1:]),
            return_dict=False,
        )[0]
        prediction: torch.Tensor = output_bcfhw[0].float()
        return prediction

    def _rotary(self, frames: int, rows: int, columns: int) -> Any:
        """Frequencies and positions of a latent grid, the same tensors whenever the grid is the same."""
        patch = int(self.setting(self.denoiser, "patch_size", 2))
        scales = tuple(
            float(self.setting(self.denoiser, f"interpolation_scale_{axis}", default))
            for axis, default in (("t", 2.2), ("h", 2.0), ("w", 2.0))
        )
        head_dim = int(self.setting(self.denoiser, "attention_head_dim", 96))
        grid = (frames, rows // patch, columns // patch)
        return _rotary_embedding(head_dim, grid, scales, str(self.device))


@lru_cache(maxsize=8)
def _rotary_embedding(
    head_dim: int, grid_fhw: tuple[int, int, int], scales: tuple[float, ...], device: str
) -> Any:
    """Three frequencies and three positions of the tokens on `grid_fhw`: of time, rows and columns."""
    import torch
    from diffusers.models.embeddings import get_3d_rotary_pos_embed_allegro

    frames, rows, columns = grid_fhw
    *frequencies, times, ys, xs = get_3d_rotary_pos_embed_allegro(
        embed_dim=head_dim,
        crops_coords=((0, 0), (rows, columns)),
        grid_size=(rows, columns),
        temporal_size=frames,
        interpolation_scale=scales,
        device=torch.device(device),
    )
    positions_n3 = torch.cartesian_prod(times.long(), ys.long(), xs.long())
    return tuple(frequencies), tuple(axis[None].contiguous() for axis in positions_n3.T)
