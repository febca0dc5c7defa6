"""LTX-2, the video part: `LTX2Pipeline`, `LTX2ImageToVideoPipeline` and `LTX2ConditionPipeline`.

LTX-2 denoises a video and its sound together. Clips are taken without sound, as Lightricks' trainer trains
without: the two streams are kept apart (`isolate_modalities`), so that nothing of the sound reaches the
video's prediction, and the sound that the transformer asks for is one token of zeros. No parameter of the
sound's stream gets a gradient (`unreached`).

The video is LTX-Video's: flow matching on packed tokens, latents (z − mean) · scaling_factor / std, latent
frame k from 1 on covers eight pixel frames. Positions are in seconds, at the pipeline's 24 frames per second
whatever the file says. The image-to-video pipeline is given latent frame 0, clean and at timestep 0, and
leaves it out of the loss; the condition pipeline takes images as an option, and is taken without.

The text is every layer of Gemma's hidden states, joined by the pipeline's connectors, which are no part of
the transformer and stay as they are. LTX-2.3 and later are also told the timestep for their text (`sigma`).
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from motive.backbones.frames import causal_sampler
from motive.backbones.loading import load_component
from motive.backbones.ltx import LTXBackbone
from motive.backbones.source import AGAIN
from motive.backbones.text import padded, without_padding
from motive.clips.sampling import FrameSampler
from motive.errors import UserError

if TYPE_CHECKING:
    import torch

FRAME_RATE = 24.0
PROMPT_LENGTH = 1024
TEXT_ENCODERS = (
    "Gemma3ForConditionalGeneration",
    "Gemma4ForConditionalGeneration",
    "Gemma4UnifiedForConditionalGeneration",
)
_SOUND = "it is of the sound"


class LTX2Backbone(LTXBackbone):
    family = "ltx-2"
    title = "LTX-2"
    pipeline_classes = ("LTX2Pipeline", "LTX2ImageToVideoPipeline", "LTX2ConditionPipeline")
    published = {  # noqa: RUF012  (as the next)
        # With the sound's stream, which is loaded and not differentiated.
        "Lightricks/LTX-2": 18_876_174_592,
        "Lightricks/LTX-2.3": 18_988_838_144,
        "Lightricks/LTX-2.5": 18_987_859_200,
    }
    denoiser_class = "LTX2VideoTransformer3DModel"
    vae_class = "AutoencoderKLLTX2Video"
    components = {  # noqa: RUF012  (declared as a ClassVar in the base class)
        "transformer": "network",
        "vae": "network",
        "text_encoder": "network",
        "connectors": "network",
        "tokenizer": "tokenizer",
        "scheduler": "settings",
    }
    unreached = {  # noqa: RUF012
        "audio_*": _SOUND,
        "transformer_blocks.*.audio_*": _SOUND,
        "av_cross_attn_*": "the streams are kept apart",
        "transformer_blocks.*.video_to_audio_attn.*": "the streams are kept apart",
        "transformer_blocks.*.video_a2v_cross_attn_scale_shift_table": "the streams are kept apart",
        "keyframes_abs_pos_embedding": "there are no keyframes (LTX-2.5)",
    }

    # What the model is.

    def default_sampler(self) -> FrameSampler:
        stride, patch_frames = self._temporal_stride(), self._patch()[1]
        return causal_sampler(self.source, 121, 512, 768, stride=stride, patch_frames=patch_frames)

    def default_prompt_length(self) -> int:
        return min(PROMPT_LENGTH, int(self.setting("tokenizer", "model_max_length", PROMPT_LENGTH)))

    def condition_shapes(
        self, latents_cfhw: tuple[int, ...], prompt_length: int
    ) -> dict[str, tuple[int, ...]]:
        heads, width = (
            int(self.setting("connectors", f"video_connector_{name}", default))
            for name, default in (("num_attention_heads", 30), ("attention_head_dim", 128))
        )
        text = {"text": (prompt_length, heads * width), "mask": (prompt_length,)}
        return {**text, **self._image_shape(latents_cfhw)}

    # Encoding.

    def load_text_encoder(self) -> None:
        import transformers
        from diffusers import LTX2Pipeline
        from diffusers.pipelines.ltx2 import LTX2TextConnectors

        named = self.source.index.get("text_encoder")
        name = named[1] if isinstance(named, list) and len(named) == 2 else None
        if name not in TEXT_ENCODERS:
            raise UserError(
                f"the text encoder of {self.source.name} is a {name}, not one of "
                f"{', '.join(TEXT_ENCODERS)}: {AGAIN}"
            )
        dtype = self.text_dtype()
        connectors = load_component(LTX2TextConnectors, self.source, "connectors", dtype)
        # The pipeline's own method tokenises and encodes, so ours cannot drift from it.
        self._text = LTX2Pipeline(
            tokenizer=self.tokenizer(),
            text_encoder=self.text_model(getattr(transformers, name)),
            connectors=connectors.to(self.device).eval().requires_grad_(False),
            vae=None,
            audio_vae=None,
            vocoder=None,
            transformer=None,
            scheduler=None,
        )

    def encode_text(self, caption: str, prompt_length: int) -> "dict[str, torch.Tensor]":
        """`text` `(L, D)` as the video's stream reads it, and its `mask` `(L,)`."""
        import torch

        assert self._text is not None, "load_text_encoder first"
        with torch.no_grad():
            layers_bld, mask_bl, _, _ = self._text.encode_prompt(
                caption,
                do_classifier_free_guidance=False,
                max_sequence_length=prompt_length,
                device=self.device,
            )
            text_bld, _, mask_bl = self._text.connectors(
                layers_bld, mask_bl, padding_side=self._text.tokenizer.padding_side
            )
        # Registers stand where the padding was: the mask usually counts all of it.
        text_ld, mask_l = without_padding(text_bld[0], mask_bl[0])
        return {"text": text_ld, "mask": mask_l}

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

        text_ld, mask_l = (padded(conditions[name], prompt_length) for name in ("text", "mask"))
        sigma_b = torch.full((1,), float(timestep), device=self.device)
        output_bsc = denoiser(
            hidden_states=self._packed(self._seen(noisy_cfhw, conditions)),
            encoder_hidden_states=text_ld[None].to(self.device, self.dtype),
            encoder_attention_mask=mask_l[None].to(self.device, self.dtype),
            timestep=self._told(noisy_cfhw, timestep),
            sigma=sigma_b,
            **self._positions(*noisy_cfhw.shape[1:]),
            **self._silence(sigma_b),
            isolate_modalities=True,
            return_dict=False,
        )[0]
        return self._unpacked(output_bsc, *noisy_cfhw.shape[1:])

    def _positions(self, frames: int, rows: int, columns: int) -> dict[str, Any]:
        return {"num_frames": frames, "height": rows, "width": columns, "fps": FRAME_RATE}

    def _silence(self, sigma_b: "torch.Tensor") -> dict[str, Any]:
        """One token of sound and one of its text, all zeros: the transformer does not run without."""
        import torch

        channels = int(self.setting(self.denoiser, "audio_in_channels", 128))
        if self.setting(self.denoiser, "use_prompt_embeddings", True):
            width = int(self.setting(self.denoiser, "caption_channels", 3840))
        else:
            width = int(self.setting(self.denoiser, "audio_cross_attention_dim", 2048))
        zeros: dict[str, Any] = {"device": self.device, "dtype": self.dtype}
        return {
            "audio_hidden_states": torch.zeros(1, 1, channels, **zeros),
            "audio_encoder_hidden_states": torch.zeros(1, 1, width, **zeros),
            "audio_timestep": sigma_b,
            "audio_num_frames": 1,
        }
