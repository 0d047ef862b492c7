"""Prompts are counted as training renders them: with the run's own template and variables."""

from verl_relift.data.tokens import TokenCounter
from verl_relift.quickstart.random_model import build_byte_tokenizer

TEMPLATE = (
    "{% for m in messages %}{{ m['content'] }}{% endfor %}{% if enable_thinking | default(true) %}<think>{% endif %}"
)
CHAT = [[("user", "question")]]


def test_a_template_and_its_variables_count(tmp_path):
    build_byte_tokenizer().save_pretrained(tmp_path)
    plain = TokenCounter.load(str(tmp_path), TEMPLATE).prompts(CHAT)[0]
    quiet = TokenCounter.load(str(tmp_path), TEMPLATE, {"enable_thinking": False}).prompts(CHAT)[0]
    assert (plain, quiet) == (len("question") + 1, len("question"))
    own = TokenCounter.load(str(tmp_path))
    assert own.prompts(CHAT)[0] == len("question") + 2  # <|user|> and <|assistant|>
    assert TokenCounter.load(str(tmp_path), TEMPLATE).answer_start() == "<think>"
