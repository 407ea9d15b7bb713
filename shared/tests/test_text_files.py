"""Text files as other machines write them are read, and what cannot be read is named with file and line."""

import codecs
import re

import pytest

from shared.errors import CourseError
from shared.text_files import parse_json, read_json, read_table, read_text

COLUMNS = {"an image name": ("image", "file_name"), "a caption": ("caption", "text")}
ROWS = [("dog.jpg", "a dog, wet"), ("café.png", "un café")]


def write(tmp_path, content):
    file = tmp_path / "table.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


@pytest.mark.parametrize(
    "content",
    [
        b"one\ntwo \xc3\xa9\n",
        codecs.BOM_UTF8 + b"one\ntwo \xc3\xa9\n",
        b"one\r\ntwo \xc3\xa9\r\n",
        b"one\rtwo \xc3\xa9\r",
        codecs.BOM_UTF16_LE + "one\r\ntwo é\r\n".encode("utf-16-le"),
        codecs.BOM_UTF16_BE + "one\ntwo é\n".encode("utf-16-be"),
    ],
    ids=["plain", "utf-8 mark", "windows", "old mac", "utf-16 little", "utf-16 big"],
)
def test_marks_and_line_endings_disappear(tmp_path, content):
    assert read_text(write(tmp_path, content)) == "one\ntwo é\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"one\r\ntwo\rcaf\xe9\n", r"table\.csv, line 3: the byte 0xe9 is not UTF-8; save the file as UTF-8"),
        ("one\ntwo".encode("utf-16-be"), r"table\.csv, line 1: a zero byte"),
    ],
)
def test_other_encodings_are_named_with_their_line(tmp_path, content, message):
    with pytest.raises(CourseError, match=message):
        read_text(write(tmp_path, content))


def test_a_missing_file_and_a_folder_are_named_with_the_advice(tmp_path):
    with pytest.raises(CourseError, match=r"none\.csv does not exist\. Get it\.$"):
        read_text(tmp_path / "none.csv", advice="Get it.")
    with pytest.raises(CourseError, match=r"cannot be read \(Is a directory\)"):
        read_json(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": 1,\n "b": }', r"JSON \(.* in line 2, at character \d+ of 16\)"),
        ("[" * 100_000, "nested too deeply"),
        ("9" * 10_000, "cannot be read as JSON"),
        ('{"a": {"b": 1, "b": 2}}', "has the key 'b' twice"),
    ],
)
def test_invalid_json_is_named(tmp_path, content, message):
    with pytest.raises(CourseError, match=message):
        read_json(write(tmp_path, content), unique_keys=True)


def test_json_with_a_mark_is_read(tmp_path):
    assert read_json(write(tmp_path, codecs.BOM_UTF8 + '{"a": "é"}'.encode())) == {"a": "é"}
    assert parse_json('{"a": 1, "a": 2}', "text") == {"a": 2}


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize(
    "header", ["", "image{0}caption\n", "Image{0}Caption\n", "file_name{0}text\n", "File Name{0} Text \n"]
)
def test_tables_of_every_delimiter_and_header_are_the_same(tmp_path, delimiter, header):
    lines = [f'{name}{delimiter}"{text}"' for name, text in ROWS]
    table = codecs.BOM_UTF8 + (header.format(delimiter) + "\n".join(lines)).encode()
    assert [row for _, row in read_table(write(tmp_path, table), COLUMNS)] == ROWS


def test_columns_are_found_by_their_words_in_any_order_among_others(tmp_path):
    file = write(tmp_path, 'split;Text;id;image\ntrain;"a dog;\nwet";7;dog.jpg\n\nval;a cat;8;cat.jpg\n')
    assert read_table(file, COLUMNS) == [(3, ("dog.jpg", "a dog;\nwet")), (5, ("cat.jpg", "a cat"))]


def test_the_line_by_which_spreadsheets_name_the_delimiter_is_understood(tmp_path):
    assert read_table(write(tmp_path, "sep=;\ndog, 1.jpg;a dog\n"), COLUMNS) == [(2, ("dog, 1.jpg", "a dog"))]


def test_a_semicolon_in_a_caption_is_no_delimiter(tmp_path):
    assert read_table(write(tmp_path, "dog.jpg,a dog; wet\n"), COLUMNS) == [(1, ("dog.jpg", "a dog; wet"))]


def test_an_empty_table_has_no_rows(tmp_path):
    assert read_table(write(tmp_path, "\n\n"), COLUMNS) == read_table(write(tmp_path, ""), COLUMNS) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("dog.jpg,a dog\ncat.jpg\n", "line 2: expected an image name and a caption, not ['cat.jpg']"),
        ("dog.jpg,a dog\ncat.jpg,a cat, wet\n", "line 2: expected an image name and a caption, not"),
        ("image;caption\ncat.jpg\n", "line 2: expected an image name and a caption, not"),
        ('dog.jpg,a dog\ncat.jpg,"a cat\n', "check the quotes"),
    ],
)
def test_rows_with_other_columns_are_named(tmp_path, content, message):
    with pytest.raises(CourseError, match=re.escape(message)):
        read_table(write(tmp_path, content), COLUMNS)
