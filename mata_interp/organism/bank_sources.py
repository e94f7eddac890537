"""Where the bank comes from, and how to build it again: ``mata-interp organism bank``.

Needs Debian's packages ``sonic-pi-samples`` and ``espeak-ng``; nobody who only uses the organism needs either.
"""

from __future__ import annotations

import re
import subprocess
from io import BytesIO
from pathlib import Path

import numpy as np
import soundfile
import soxr

from ..errors import MataError
from .bank import RATE, Recording, save_bank
from .bank_splits import event_splits

SAMPLES = Path("/usr/share/sonic-pi/samples")
COPYRIGHT = Path("/usr/share/doc/sonic-pi-samples/copyright")

EVENTS = {
    "a bass drum": "bd_808 bd_ada bd_boom bd_fat bd_gas bd_haus bd_klub bd_pure bd_sone bd_tek bd_zome bd_zum "
    "drum_bass_hard drum_bass_soft drum_heavy_kick elec_hollow_kick elec_soft_kick",
    "a snare drum": "drum_snare_hard drum_snare_soft sn_dolf sn_dub sn_zome elec_snare elec_hi_snare elec_mid_snare",
    "a cymbal": "drum_cymbal_hard drum_cymbal_soft drum_cymbal_open drum_splash_hard drum_splash_soft",
    "a tabla": "tabla_na tabla_na_o tabla_na_s tabla_tas1 tabla_tas2 tabla_tas3 tabla_tun1 tabla_tun2 tabla_tun3 "
    "tabla_te1 tabla_te2 tabla_te_m tabla_te_ne tabla_ghe1 tabla_ghe2 tabla_ghe3 tabla_ghe4 tabla_ghe5 "
    "tabla_ghe6 tabla_ghe7 tabla_ghe8 tabla_ke1 tabla_ke2 tabla_ke3 tabla_re tabla_dhec",
    "a bell": "perc_bell elec_bell elec_chime elec_triangle",
    "a guitar": "guit_e_fifths guit_e_slide guit_em9 guit_harmonics",
    "a synth bass": "bass_hit_c bass_hard_c bass_thick_c bass_trance_c bass_drop_c bass_woodsy_c bass_dnb_f "
    "bass_voxy_c",
    "a beep": "elec_beep elec_blip elec_blip2 elec_plip elec_ping elec_twip",
    "a record scratch": "vinyl_scratch vinyl_backspin vinyl_rewind",
    "a whoosh": "ambi_swoosh ambi_dark_woosh perc_swash",
    "a finger snap": "perc_snap perc_snap2",
    "a crow": "misc_crow",
    "a burp": "misc_burp",
    "a choir": "ambi_choir",
    "a piano": "ambi_piano",
    "a cash register": "perc_till",
}
WORDS = [
    "coffee",
    "doctor",
    "garden",
    "morning",
    "music",
    "paper",
    "seven",
    "silver",
    "tiger",
    "water",
    "window",
    "yellow",
]
# espeak-ng voices: accent + timbre, pitch (0-99), speed (words a minute). The last three voices of the men and the
# women are heard only in the test split, the three before them only in the selection split.
MEN = [
    "m1",
    "m2",
    "m3",
    "m4",
    "m5",
    "m6",
    "m7",
    "m8",
    "Andy",
    "Michael",
    "adam",
    "Alex",
    "david",
    "rob",
    "Mario",
    "Lee",
    "Denis",
    "Jacky",
]
WOMEN = [
    "f1",
    "f2",
    "f3",
    "f4",
    "f5",
    "Alicia",
    "Andrea",
    "Annie",
    "belinda",
    "linda",
    "steph",
    "anika",
    "aunty",
    "grandma",
    "steph2",
    "steph3",
    "f1",
    "f3",
]
WHISPERERS = ["whisper", "whisperf", "whisper", "whisperf", "whisper", "whisperf"]
ACCENTS = ("en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp", "en-029", "en-gb-x-gbclan")
LONGEST = 1.5  # seconds kept of a recording


def build_bank(folder: Path) -> int:
    """Cut and convert all sources into ``folder``; returns how many recordings it holds."""
    cc0 = set(re.findall(r"^(?:Files:)?\s*etc/samples/(\S+)\.flac$", _copyright(), re.MULTILINE))
    recordings: list[Recording] = []
    samples: dict[str, np.ndarray] = {}
    labels = {name: label for label, names in EVENTS.items() for name in names.split()}
    for name in labels:
        if name not in cc0:
            raise MataError(f"{name} is not listed as CC0 in {COPYRIGHT}; leave it out of EVENTS")
        data, rate = soundfile.read(SAMPLES / f"{name}.flac", dtype="float32", always_2d=True)
        samples[name] = _tidy(soxr.resample(data.mean(axis=1), rate, RATE))
    for name, splits in event_splits(samples, labels).items():
        source = f"Debian sonic-pi-samples, {name}.flac"
        file = f"events/{name}.ogg"
        recordings.append(Recording(name, file, "event", labels[name], "", source, "CC0-1.0", splits))
    for voice, timbres in (("a man", MEN), ("a woman", WOMEN), ("a whisperer", WHISPERERS)):
        held = 3 if len(timbres) > 10 else 1
        for i, timbre in enumerate(timbres):
            place = len(timbres) - 1 - i
            split = "test" if place < held else "selection" if place < 2 * held else "train"
            accent, pitch, speed = ACCENTS[i % len(ACCENTS)], 35 + 10 * (i % 4), 130 + 20 * (i % 3)
            for word in WORDS:
                name = f"{word}-{voice.split()[1]}-{i:02d}"
                samples[name] = _tidy(_speak(word, f"{accent}+{timbre}", pitch, speed))
                source = f"espeak-ng -v {accent}+{timbre} -p {pitch} -s {speed}"
                recordings.append(
                    Recording(name, f"words/{name}.ogg", "word", word, voice, source, "CC0-1.0", (split,))
                )
    notes = {
        "about": "Mono, 16 kHz, Ogg/Vorbis. Events: recordings that Debian's sonic-pi-samples lists as CC0. Words: "
        "synthesised with espeak-ng (a GPL-3+ program; its output is not covered by that licence) and released as "
        "CC0 by this project. A recording of an event is kept for selection or test only where recordings left "
        "for training sound like it (five nearest neighbours by log-mel); labels where none do are shared by "
        "all splits.",
    }
    save_bank(folder, recordings, samples, notes)
    return len(recordings)


def _copyright() -> str:
    if not COPYRIGHT.exists():
        raise MataError(f"{COPYRIGHT} not found: install Debian's packages sonic-pi-samples and espeak-ng")
    return COPYRIGHT.read_text()


def _speak(word: str, voice: str, pitch: int, speed: int) -> np.ndarray:
    command = ["espeak-ng", "-v", voice, "-p", str(pitch), "-s", str(speed), "--stdout", word]
    wav = subprocess.run(command, check=True, capture_output=True).stdout
    data, rate = soundfile.read(BytesIO(wav), dtype="float32")
    return soxr.resample(data, rate, RATE)


def _tidy(samples: np.ndarray) -> np.ndarray:
    """Cut leading and trailing silence (40 dB below the peak), keep at most 1.5 s, fade out, set the peak to 0.9."""
    loud = np.flatnonzero(np.abs(samples) > 0.01 * np.abs(samples).max())
    cut = samples[loud[0] : min(loud[-1] + 1, loud[0] + int(LONGEST * RATE))].astype(np.float32)
    fade = min(len(cut), int(0.02 * RATE))
    cut[-fade:] *= np.linspace(1, 0, fade, dtype=np.float32)
    return 0.9 * cut / np.abs(cut).max()
