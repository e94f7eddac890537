"""All families that the tests know; the package itself has no such list."""

from __future__ import annotations

from . import codes as d
from . import conformers as c
from . import hybrids as h
from . import whispers as w
from .family import Family

__all__ = ["FAMILIES"]

FAMILIES = {
    family.name: family
    for family in (
        Family("qwen2_audio", w.qwen2_audio, w.qwen2_audio_sound),
        Family("qwen2_5_omni", w.qwen2_5_omni, w.qwen2_5_omni_sound),
        Family("qwen3_omni_moe", w.qwen3_omni_moe, w.qwen3_omni_moe_sound),
        Family("audioflamingo3", w.audioflamingo3, w.flamingo_sound),
        Family("musicflamingo", w.musicflamingo, w.flamingo_sound),
        Family("voxtral", w.voxtral, w.voxtral_sound),
        Family("granite_speech", c.granite_speech, c.granite_sound),
        Family("granite_speech_plus", c.granite_speech_plus, c.granite_sound),
        Family("phi4_multimodal", c.phi4_multimodal, c.phi4_sound),
        Family("gemma3n", c.gemma3n, c.gemma3n_sound, needs=("timm",), audio=270),
        Family("gemma4", c.gemma4, c.gemma4_sound),
        # four edited steps end 7e-6 to 1.05e-5 off, as softmax is written one way or the other
        Family("gemma4_unified", c.gemma4_unified, c.gemma4_unified_sound, rounding=2e-5),
        Family("glmasr", w.glmasr, w.glmasr_sound),
        Family("qwen3_asr", w.qwen3_asr, w.qwen3_asr_sound),
        Family("vibevoice_asr", c.vibevoice_asr, c.vibevoice_sound),
        Family("inkling_mm_model", d.inkling, d.inkling_sound, states=True),
        Family("nemotron_h_omni", h.nemotron_h_omni, h.nemotron_sound, states=True),
        Family("granite_speech on granitemoehybrid", h.granite_hybrid, c.granite_sound, states=True),
        # the delta rule makes more of rounding: a row alone and padded differ by 6e-6
        Family(
            "audioflamingo3 on qwen3_next", h.flamingo_delta, w.flamingo_sound, states=True, rounding=3e-5
        ),
        Family("voxtral on lfm2", h.voxtral_convolving, w.voxtral_sound, states=True),
    )
}
