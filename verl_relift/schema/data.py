"""`data`: the files, and how questions are drawn from them."""

from .rules import Each, Flag, Only, Text, Unchecked, Whole, under, when, when_set

KEYS = under(
    "data",
    {
        "train_files": Each(Text(), or_one=True),
        "val_files": Each(Text(), or_one=True),
        "cache_dir": Text(null=True),  # for copies of files that are not on this machine
        "train_max_samples": Whole(1, also=(-1,)),
        "val_max_samples": Whole(1, also=(-1,)),
        "prompt_key": Only("prompt", "data_preprocess.jsonl renames a column"),
        "reward_fn_key": Unchecked(),  # `rewards.problems` checks it
        "max_prompt_length": Whole(1),
        "max_response_length": Whole(1),
        "train_batch_size": Whole(1),
        "gen_batch_size": Only(None, "a step draws data.train_batch_size questions"),
        "val_batch_size": Whole(1, null=True),
        "shuffle": Flag(),
        "seed": Whole(0, null=True),
        "dataloader_num_workers": Whole(0),
        "validation_shuffle": Flag(),
        "filter_overlong_prompts": Flag(),
        "filter_overlong_prompts_workers": Whole(1, when=when("data.filter_overlong_prompts", True)),
        "truncation": Only("error", "a question is never cut; data.filter_overlong_prompts=true leaves long ones out"),
        "trust_remote_code": Only(False, "code that comes with a model is not run"),
        "return_raw_chat": Only(True, "questions are chats"),
        "custom_cls": {"path": Text(null=True), "name": Text(null=True, when=when_set("data.custom_cls.path"))},
        "apply_chat_template_kwargs": Unchecked(),  # preflight asks the chat template
    },
)
