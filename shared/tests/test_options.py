"""Types of options accept what they state, and refuse everything else with the option's name."""

import argparse

import pytest

from shared import options


def parsed(kind: object, text: str) -> object:
    parser = argparse.ArgumentParser()
    parser.add_argument("--option", type=kind)
    return parser.parse_args([f"--option={text}"]).option


@pytest.mark.parametrize(
    ("kind", "accepted", "refused"),
    [
        (options.COUNT, ("1", "200"), ("0", "-1", "1.5", "", "many", "9" * 5000)),
        (options.SEED, ("0", str(2**63 - 1)), ("-1", str(2**63), "0 0")),
        (options.PORT, ("0", "65535"), ("65536", "-1")),
        (options.POSITIVE, ("0.1", "1e-9"), ("0", "-1", "nan", "inf", "1e999", "x")),
        (options.FRACTION, ("0", "0.99"), ("1", "-0.1", "nan")),
        (options.whole_number(), ("0",), ("-1",)),
    ],
)
def test_options_outside_of_their_range_are_named(kind, accepted, refused, capsys):
    for text in accepted:
        assert float(parsed(kind, text)) == float(text)
    for text in refused:
        with pytest.raises(SystemExit) as status:
            parsed(kind, text)
        assert status.value.code == 2
        assert "argument --option: " in (error := capsys.readouterr().err) and "expected a" in error


def test_paths_that_no_file_can_have_are_named(capsys):
    for text in ("x" * 300, f"folder/{'ü' * 128}/a.png", "a/" * 2048 + "a"):
        for kind in (options.path, options.file_or_dataset):
            with pytest.raises(SystemExit):
                parsed(kind, text)
            assert "argument --option: " in (error := capsys.readouterr().err) and len(error) < 300
    assert str(parsed(options.path, "x" * 255)) == "x" * 255
    assert parsed(options.file_or_dataset, "coco:val2017") == "coco:val2017"
