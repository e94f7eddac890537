"""Sources of the bank, and the code that builds it: ``mata-interp organism bank``.

Building needs Debian's packages ``sonic-pi-samples`` and ``espeak-ng``; using the organism needs neither.
"""

from __future__ import annotations

import re
import subprocess
from io import BytesIO
from pathlib import Path

import numpy as np
import soundfile
import soxr

from . import OrganismError
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
# Timbres of espeak-ng. The last three of MEN and of WOMEN are used in the confirmation split only, the three before
# them in the selection split only; of WHISPERERS it is one each.
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
LONGEST = 1.5  # seconds; longer recordings are cut


def build_bank(folder: Path) -> int:
    """Cut and convert all sources into ``folder``.

    Returns:
        The number of recordings.

    Raises:
        OrganismError: a source package is not installed, or a recording is not listed as CC0.
    """
    cc0 = set(re.findall(r"^(?:Files:)?\s*etc/samples/(\S+)\.flac$", _copyright(), re.MULTILINE))
    recordings: list[Recording] = []
    samples: dict[str, np.ndarray] = {}
    labels = {name: label for label, names in EVENTS.items() for name in names.split()}
    for name in labels:
        if name not in cc0:
            raise OrganismError(f"{name} is not listed as CC0 in {COPYRIGHT}: remove it from EVENTS.")
        data, rate = soundfile.read(SAMPLES / f"{name}.flac", dtype="float32", always_2d=True)
        samples[name] = _trim(soxr.resample(data.mean(axis=1), rate, RATE))
    for name, splits in event_splits(samples, labels).items():
        source = f"Debian sonic-pi-samples, {name}.flac"
        file = f"events/{name}.ogg"
        recordings.append(Recording(name, file, "event", labels[name], "", source, "CC0-1.0", splits))
    for voice, timbres in (("a man", MEN), ("a woman", WOMEN), ("a whisperer", WHISPERERS)):
        held_out = 3 if len(timbres) > 10 else 1  # voices of each of the two held-out splits
        for i, timbre in enumerate(timbres):
            from_end = len(timbres) - 1 - i
            if from_end < held_out:
                split = "confirmation"
            elif from_end < 2 * held_out:
                split = "selection"
            else:
                split = "train"
            # an accent, a pitch (0-99) and a speed (words a minute)
            accent, pitch, speed = ACCENTS[i % len(ACCENTS)], 35 + 10 * (i % 4), 130 + 20 * (i % 3)
            for word in WORDS:
                name = f"{word}-{voice.split()[1]}-{i:02d}"
                samples[name] = _trim(_speak(word, f"{accent}+{timbre}", pitch, speed))
                source = f"espeak-ng -v {accent}+{timbre} -p {pitch} -s {speed}"
                recordings.append(
                    Recording(name, f"words/{name}.ogg", "word", word, voice, source, "CC0-1.0", (split,))
                )
    notes = {
        "about": "Mono, 16 kHz, Ogg/Vorbis. Events: recordings that Debian's sonic-pi-samples lists as CC0. Words: "
        "synthesised with espeak-ng (a GPL-3+ program; its output is not covered by that licence) and released as "
        "CC0 by this project. A recording of an event is held out for the selection or the confirmation split only if "
        "the recordings left for training sound like it (five nearest neighbours by log-mel); labels without such "
        "recordings are shared by all splits.",
    }
    save_bank(folder, recordings, samples, notes)
    return len(recordings)


def _copyright() -> str:
    if not COPYRIGHT.exists():
        raise OrganismError(f"No file {COPYRIGHT}: install Debian's packages sonic-pi-samples and espeak-ng.")
    return COPYRIGHT.read_text()


def _speak(word: str, voice: str, pitch: int, speed: int) -> np.ndarray:
    """A word as espeak-ng speaks it, at the bank's rate."""
    command = ["espeak-ng", "-v", voice, "-p", str(pitch), "-s", str(speed), "--stdout", word]
    wav = subprocess.run(command, check=True, capture_output=True).stdout
    data, rate = soundfile.read(BytesIO(wav), dtype="float32")
    return soxr.resample(data, rate, RATE)


def _trim(samples: np.ndarray) -> np.ndarray:
    """Remove leading and trailing silence (40 dB below the peak), keep 1.5 s at most, fade out, set the peak to 0.9."""
    audible = np.flatnonzero(np.abs(samples) > 0.01 * np.abs(samples).max())
    cut = samples[audible[0] : min(audible[-1] + 1, audible[0] + int(LONGEST * RATE))].astype(np.float32)
    fade = min(len(cut), int(0.02 * RATE))
    cut[-fade:] *= np.linspace(1, 0, fade, dtype=np.float32)
    return 0.9 * cut / np.abs(cut).max()
