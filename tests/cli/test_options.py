"""Options that mean the same are the same on every command; wrong values fail before a model is loaded."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import mata_interp.cli.inputs
from mata_interp import cli
from mata_interp.cli import output
from mata_interp.cli.app import app
from mata_interp.cli.checks import unknown_name
from mata_interp.cli.options import ORDER
from mata_interp.cli.schemas import SCHEMAS
from mata_interp.errors import RunError
from mata_interp.load_options import LoadOptions
from tests.reporting.small import small_study
from tests.support.packages import without_bitsandbytes

COMMANDS = ("study", "listen", "trace", "layers", "sweep", "check", "run", "report")
ON_ITEMS = ("study", "trace", "layers", "sweep", "run")
DIFFERENT = {"--out": "what is written", "--layers": "sweep takes kinds of maps, too"}  # option -> why


def call_main(monkeypatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["mata-interp", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


@pytest.fixture
def no_model(monkeypatch):
    """Loading a model is an error: what is tested must fail before."""

    def loaded(*_, **__):
        raise AssertionError("a model was loaded")

    for module in ("study", "listen", "trace", "layers", "sweep", "check", "run"):
        monkeypatch.setattr(f"mata_interp.cli.commands.{module}.load_model", loaded)


def options_of(command: str) -> list:
    group = typer.main.get_command(app)
    return [p for p in group.commands[command].params if p.param_type_name == "option" and p.name != "help"]


def described(option) -> dict[str, object]:
    names = ("opts", "help", "default", "metavar", "min", "max", "is_flag", "multiple", "hidden")
    described = {name: getattr(option, name, None) for name in names}
    annotation = getattr(getattr(option, "type_descriptor", None), "annotation", None)
    return described | {"type": str(annotation or getattr(option, "type", None))}


@pytest.mark.parametrize("command", COMMANDS)
def test_options_stand_in_one_order(command):
    names = [option.opts[0] for option in options_of(command)]
    assert set(names) <= set(ORDER)
    assert names == sorted(names, key=ORDER.index)


def test_the_same_option_is_the_same_everywhere():
    descriptions: dict[str, dict[str, object]] = {}
    for command in COMMANDS:
        for option in options_of(command):
            name = option.opts[0]
            if name not in DIFFERENT:
                assert described(option) == descriptions.setdefault(name, described(option)), (command, name)
    assert {"--model", "--seed", "--alpha", "--json", "--prompt"} <= set(descriptions)


def test_commands_on_items_share_their_options():
    shared = {"--model", "--benchmark", "--audio-root", "--fields", "--subset", "--items", "--seed", "--json"}
    for command in ON_ITEMS:
        assert shared <= {option.opts[0] for option in options_of(command)}
    loading = {"--device", *LOADING}
    for command in COMMANDS:
        assert loading <= {option.opts[0] for option in options_of(command)}
    for command in ("trace", "layers", "sweep", "run"):
        assert "--split" in {option.opts[0] for option in options_of(command)}


def test_help_names_everything_that_can_be_chosen():
    from mata_interp.interventions import RULES
    from mata_interp.interventions.selection import PHASES, QUERIES
    from mata_interp.lalm import PROMPT_FORMATS
    from mata_interp.lalm.prompting.groups import GROUPS

    texts = {option.opts[0]: option.help for option in options_of("run")}
    for name, known in {
        "--rule": RULES,
        "--phase": PHASES,
        "--queries": QUERIES,
        "--keys": GROUPS,
        "--prompt": PROMPT_FORMATS,
    }.items():
        assert [word for word in known if word not in texts[name]] == []


@pytest.mark.parametrize("command", ["study", "trace", "layers", "sweep", "run", "check"])
def test_one_way_to_name_the_model(command, monkeypatch, capsys, no_model, tmp_path):
    assert call_main(monkeypatch, command, "organism", "--model", "organism-unbiased") == 2
    assert "organism-unbiased" in capsys.readouterr().err
    for words in (["organizm"], ["--model", "organizm"]):
        assert call_main(monkeypatch, command, *words) == 2
        assert "'organism'" in capsys.readouterr().err
    assert call_main(monkeypatch, command, tmp_path / "none") == 2
    assert str(tmp_path / "none") in capsys.readouterr().err


def test_model_and_its_synonym(monkeypatch):
    assert mata_interp.cli.inputs.model_name(None, None) == "organism"
    assert mata_interp.cli.inputs.model_name("organism", "organism") == "organism"
    assert mata_interp.cli.inputs.model_name(None, "owner/name") == "owner/name"


WRONG = [
    (("run", "--rule", "mult"), ("'mult'", "'mul'")),
    (("run", "--phase", "prefil"), ("'prefill'",)),
    (("run", "--queries", "all"), ("'all'", "last")),
    (("run", "--keys", "sound"), ("'sound'", "audio")),
    (("run", "--prompt", "kimy"), ("'kimi'",)),
    (("run", "--alpha", "nan"), ("nan",)),
    (("run", "--alpha", "1,inf"), ("inf",)),
    (("run", "--seed", "-1"), ("--seed",)),
    (("run", "--layers", "5-3"), ("5-3",)),
    (("run", "--layers", "{tmp}/none.json"), ("none.json",)),
    (("run", "--grid", "{tmp}/none.toml"), ("none.toml",)),
    (("run", "--benchmark", "{tmp}/none.csv"), ("none.csv",)),
    (("run", "--audio-root", "{tmp}/none"), ("--audio-root",)),
    (("run", "--out", "{tmp}/file"), ("file",)),
    (("run", "--out", "{tmp}/file/run"), ("file",)),
    (("run", "--temperature", "1"), ("--temperature", "--generate")),
    (("run", "--max-new-tokens", "9"), ("--max-new-tokens", "--generate")),
    (("run", "--top-p", "0.5"), ("--top-p", "--generate")),
    (("run", "--generate", "--top-p", "0.5"), ("--top-p", "--temperature")),
    (("run", "--workers", "2"), ("--workers", "--ray")),
    (("run", "--gpus-per-worker", "1"), ("--gpus-per-worker", "--ray")),
    (("run", "--grid", "{tmp}/grid.json", "--alpha", "1"), ("--alpha", "--grid")),
    (("sweep", "--grid", "{tmp}/grid.json", "--keys", "text"), ("--keys", "--grid")),
    (("sweep", "--layers", "1;5-3"), ("5-3",)),
    (("sweep", "--layers", "0-1", "--widths", "1"), ("--widths",)),
    (("trace", "--max-new-tokens", "3"), ("--max-new-tokens", "--query generated")),
    (("trace", "--out", "{tmp}"), ("--out",)),
    (("layers", "--criteria", "nonsense"), ("'nonsense'", "depth")),
    (("layers", "--figure", "{tmp}/profile.xyz"), (".png", "--figure")),
    (("layers", "--figure", "{tmp}"), ("--figure",)),
    (("layers", "--figure", "{tmp}/file/profile.png"), ("--figure",)),
    (("layers", "--out", "{tmp}"), ("--out",)),
    (("layers", "--profiles"), ("--json",)),
    (("study", "--rule", "knockout"), ("--rule", "strength")),
    (("study", "--alpha", "0,1"), ("--alpha", "above 0")),
    (("study", "--temperature", "1"), ("--temperature", "--generate")),
    (("study", "--prompt", "kimy"), ("'kimi'",)),
    (("sweep", "--prompt", "kimy"), ("'kimi'",)),
    (("layers", "--prompt", "kimy"), ("'kimi'",)),
    (("study", "--workers", "2"), ("--workers", "--ray")),
    (("trace", "--workers", "2"), ("--workers", "--ray")),
    (("sweep", "--gpus-per-worker", "1"), ("--gpus-per-worker", "--ray")),
    (("layers", "--workers", "2"), ("--workers", "--ray")),
    (("listen", "{tmp}/none.wav", "What?"), ("none.wav",)),
    (("listen", "{tmp}/file", "What?", "--alpha", "1,2"), ("--alpha",)),
    (("listen", "{tmp}/file", "What?", "--choices", "a,b", "--max-new-tokens", "2"), ("--choices",)),
    (("report", "{tmp}/none"), ("none",)),
    (("check", "--dtype", "int8"), ("--dtype", "'int8'", "bf16")),
    (("trace", "--dtype", "bf61"), ("'bf16'",)),
    (("run", "--device", "cuda:99"), ("--device", "'cuda:99'", "cpu")),
    (("layers", "--device", "gpu"), ("--device", "'gpu'")),
    (("study", "--device", "cpu", "--device-map", "auto"), ("--device", "--device-map")),
    (("sweep", "--device-map", "automatic"), ("--device-map", "'auto'")),
    (("sweep", "--device-map", "{tmp}/none.json"), ("--device-map", "none.json")),
    (("sweep", "--device-map", "{tmp}/list.json"), ("--device-map", "list.json")),
    (("sweep", "--device-map", "{tmp}/map.json"), ("--device-map", "'cuda:99'")),
    (("study", "--attn-implementation", "sdap"), ("--attn-implementation", "'sdpa'")),
    (("listen", "{tmp}/file", "What?", "--load-in", "2bit"), ("--load-in", "'8bit'")),
    (("trace", "--revision", "main"), ("--revision", "'organism'")),
    (("trace", "--model", "{tmp}", "--revision", "main"), ("--revision",)),
    (("run", "--chat-template", "{tmp}/none.jinja"), ("--chat-template", "none.jinja")),
]


@pytest.mark.parametrize(("arguments", "facts"), WRONG, ids=lambda value: " ".join(value))
@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_wrong_values_fail_before_a_model_is_loaded(
    arguments, facts, as_json, monkeypatch, capsys, tmp_path, no_model
):
    (tmp_path / "file").write_text("")
    (tmp_path / "grid.json").write_text("{}")
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "map.json").write_text('{"": "cuda:99"}')
    arguments = [text.format(tmp=tmp_path) for text in arguments]
    if as_json and "--profiles" in arguments:
        pytest.skip("with --json it is right")
    assert call_main(monkeypatch, *arguments, *(["--json"] if as_json else [])) == 2
    printed = capsys.readouterr()
    if as_json:
        data = json.loads(printed.out)
        assert set(data) == {"schema", *SCHEMAS["error"].keys}
        assert data["error"]["type"] == "UsageError"
        message = data["error"]["message"]
    else:
        assert printed.out == ""
        message = printed.err.splitlines()[-1]
        assert message.startswith("error: ")
    assert [fact for fact in facts if fact not in message] == []
    assert "Traceback" not in printed.err


class Loading(Exception):
    """Raised in the place of loading a model."""


@pytest.fixture
def load_calls(monkeypatch):
    """What would have been loaded: name and arguments."""
    calls: list[tuple[str, dict]] = []

    def from_pretrained(name, **arguments):
        calls.append((name, arguments))
        raise Loading

    monkeypatch.setattr(mata_interp.LALM, "from_pretrained", from_pretrained)
    return calls


LOADING = {
    "--device-map": ("{tmp}/map.json", "device_map", {"": "cpu"}),
    "--dtype": ("bfloat16", "dtype", "bf16"),
    "--attn-implementation": ("eager", "attn_implementation", "eager"),
    "--load-in": ("8bit", "quantization_config", "8bit"),
    "--revision": ("v2", "revision", "v2"),
    "--chat-template": ("{tmp}/mine.jinja", "chat_template", "{tmp}/mine.jinja"),
}  # option -> its value, the argument of LALM.from_pretrained, the value of that


@pytest.mark.parametrize("command", ["study", "listen", "trace", "layers", "sweep", "check", "run"])
def test_every_command_loads_as_its_options_say(command, monkeypatch, tmp_path, load_calls):
    monkeypatch.setattr("mata_interp.lalm.load_values.check_quantization", lambda value: None)
    (tmp_path / "map.json").write_text('{"": "cpu"}')
    (tmp_path / "mine.jinja").write_text("{{ messages }}")
    (tmp_path / "clip.wav").write_text("")
    first = [tmp_path / "clip.wav", "What?"] if command == "listen" else []
    words = [word.format(tmp=tmp_path) for option, (value, *_) in LOADING.items() for word in (option, value)]
    expected = {
        name: Path(value.format(tmp=tmp_path)) if name == "chat_template" else value
        for _, name, value in LOADING.values()
    }
    monkeypatch.chdir(tmp_path)
    for used, arguments in ((words, expected), (["--device", "cpu"], {"device": "cpu"}), ([], {})):
        monkeypatch.setattr(
            sys, "argv", ["mata-interp", command, *map(str, [*first, "--model", "owner/name", *used])]
        )
        with pytest.raises(Loading):
            cli.main()
        assert load_calls[-1] == ("owner/name", arguments)


def test_loading_says_where_and_how_the_model_runs(capsys):
    mata_interp.cli.inputs.load_model("organism", LoadOptions(device="cpu", dtype="bf16"))
    assert "organism on cpu, bfloat16, sdpa" in capsys.readouterr().err


def test_bitsandbytes_is_needed_before_anything_is_loaded(monkeypatch, capsys, no_model):
    without_bitsandbytes(monkeypatch)
    assert call_main(monkeypatch, "check", "--load-in", "4bit") == 1
    printed = capsys.readouterr().err
    assert printed.startswith("error: ")
    assert "pip install bitsandbytes" in printed


def test_failures_are_json_too(monkeypatch, capsys, tmp_path):
    assert call_main(monkeypatch, "report", tmp_path, "--json") == 1
    data = json.loads(capsys.readouterr().out)
    assert data["schema"] == SCHEMAS["error"].id
    assert data["error"]["type"] == "RunError"
    assert "manifest.json" in data["error"]["message"]


@pytest.mark.parametrize("where", ["ours", "elsewhere"])
def test_only_errors_of_this_package_lose_their_traceback(where, monkeypatch, capsys, tmp_path):
    def load(*_, **__):
        if where == "elsewhere":
            raise ValueError("not ours")
        mata_interp.Items.from_records([]).sample(0)

    monkeypatch.setattr("mata_interp.reporting.writing.page_of", load)
    if where == "elsewhere":
        monkeypatch.setattr(sys, "argv", ["mata-interp", "report", str(tmp_path)])
        with pytest.raises(ValueError, match="not ours"):
            cli.main()
    else:
        assert call_main(monkeypatch, "report", tmp_path) == 1
        assert capsys.readouterr().err.startswith("error: ")


def test_home_folder_is_expanded(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    read, written = [], []
    monkeypatch.setattr("mata_interp.reporting.writing.page_of", read.extend)
    monkeypatch.setattr(
        "mata_interp.reporting.writing.write_page", lambda _, path: written.append(path) or path
    )
    (tmp_path / "run").mkdir()
    done = CliRunner().invoke(app, ["report", "~/run", "--out", "~/page.html"])
    assert done.exit_code == 0, done.output
    assert read == [tmp_path / "run"]
    assert written == [tmp_path / "page.html"]


def test_unknown_names_say_what_there_is():
    text = unknown_name("rule", "mult", ["abs", "mul"])
    assert "'mult'" in text
    assert "abs, mul" in text
    assert "'mul'" in text.partition("abs, mul")[2]
    assert "Did you mean" not in unknown_name("rule", "xyz", ["abs", "mul"])


def test_items_that_whole_clips_leave_out_are_counted(capsys):
    items = mata_interp.load_benchmark(small_study().benchmark)
    few = mata_interp.cli.inputs.take(items, "all", 8, 0)
    assert len(few) == 6
    note = capsys.readouterr().err
    assert "6 of 25" in note
    assert "--items 8" in note
    mata_interp.cli.inputs.take(items, "all", 6, 0)
    mata_interp.cli.inputs.take(items, "selection", None, 0)
    assert capsys.readouterr().err == ""
    with pytest.raises(RunError, match="selection"):
        mata_interp.cli.inputs.take(items[:0], "selection", None, 0)


def test_messages_use_option_names():
    assert output.option_words("Choose another folder (out=...).") == "Choose another folder (--out)."
    assert output.option_words("give path=.") == "give --benchmark ."
    assert (
        output.option_words("Test it on items.split('confirmation').") == "Test it on --split confirmation."
    )
    assert output.option_words("alpha is nan") == "alpha is nan"


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "ascii"])
def test_every_encoding_can_be_written(encoding, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    with output.any_encoding():
        print("\u22121.5\u202f% \u2192 █▌ 狗")
        output.print_table(["name", "value"], [["狗 caf\u00e9", "\u22121"]])
        output.print_result("report", {"report": "狗", "paper": None})
    stream.flush()
    text = stream.buffer.getvalue().decode(encoding)
    assert text.startswith("-1.5 % -> ## ?")
    assert json.loads(text[text.index("{") :])["report"] == "狗"
    assert stream.errors == "strict"


def test_tables_are_plain_where_there_is_no_terminal(capsys):
    long = "x" * 150
    output.print_table(["name", "value"], [[long, "1"], ["[red]y[/red]", "\u22122"]])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[1].split() == [long, "1"]
    assert lines[2].split() == ["[red]y[/red]", "\u22122"]
    assert len({len(line) for line in lines}) == 1  # numbers end in one column
    assert "\x1b" not in "".join(lines)


def test_tables_fit_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm-256color")
    output.print_table(["name", "value"], [["word " * 30, "1"]])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 3
    assert max(map(len, lines[1:])) <= 40


def test_every_schema_has_a_name_and_says_what_its_keys_hold():
    ids = [schema.id for schema in SCHEMAS.values()]
    assert len(set(ids)) == len(ids)
    for schema in SCHEMAS.values():
        prefix, _, version = schema.id.rpartition("/")
        assert prefix.startswith("mata-interp/")
        assert version.isdigit()
        assert all(schema.keys.values())
    with pytest.raises(AssertionError, match="extra"):
        output.print_result("report", {"report": "x", "paper": None, "extra": 1})
