"""A damaged configuration of a model is named with its file."""

import re

import pytest

from verl_relift.data.model_config import read_config


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("[1]", "not a JSON object"),
        ("{", "cannot be read (Expecting property name"),
        ('{"num_hidden_layers": -2}', "num_hidden_layers=-2 is not a whole number above 0"),
        ('{"hidden_size": "64"}', 'hidden_size="64" is not a whole number above 0'),
    ],
)
def test_a_configuration_that_is_none_is_named(tmp_path, content, problem):
    file = tmp_path / "config.json"
    file.write_text(content)
    with pytest.raises(ValueError, match=re.escape(f"{file}: {problem}") + ".*from the model's source"):
        read_config(file)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"config\.json: cannot be read"):
        read_config(tmp_path / "config.json")
