"""The commands of a finished model: recommend, serve, export, push; and of a backbone's file."""

import argparse
from collections.abc import Callable, Sequence
from typing import Any

from delrec_hf.errors import InputError


def add_model_commands(add: Callable[..., Any]) -> None:
    """Add the commands to a command line.

    Args:
        add: Adds one by its name, its description and the function that runs it, and returns its
            parser.
    """
    recommend = add("recommend", "recommend with a finished model", _recommend)
    recommend.add_argument("--model", required=True, help="folder or Hub id of a model")
    recommend.title_lists = ("--history", "--candidates")
    recommend.add_argument(
        "--history",
        required=True,
        nargs="+",
        action="extend",
        metavar="TITLE",
        help="titles or ids, oldest first; id:21 and title:21 where 21 is both",
    )
    recommend.add_argument(
        "--candidates",
        nargs="+",
        action="extend",
        metavar="TITLE",
        help="rank these (default: the catalogue)",
    )
    recommend.epilog = (
        "All words after --history and --candidates are titles up to the next option, also -30- "
        "or --help; one spelt like another option is written title:--json or --history=--json."
    )
    recommend.add_argument("--top_k", type=int, default=10, help="how many (default: 10)")
    recommend.add_argument(
        "--with_teacher",
        nargs="?",
        const=True,
        type=_true_or_false,
        metavar="true|false",
        help="rank with the teacher too, or do not (default: where the model holds one)",
    )
    recommend.add_argument(
        "--retrieve", type=int, help="how many items of the catalogue the teacher retrieves"
    )
    recommend.add_argument("--json", action="store_true", help="print JSON")
    _add_loading(recommend)

    serve = add("serve", "answer over HTTP with a finished model", _serve)
    serve.add_argument("--model", required=True, help="folder or Hub id of a model")
    serve.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: %(default)s)"
    )
    serve.add_argument(
        "--port", type=int, default=8000, help="its port (default: %(default)s; 0: any free one)"
    )
    _add_loading(serve)

    export = add("export", "fold prompt and LoRA into a plain checkpoint", _export)
    export.add_argument("--model", required=True, help="folder or Hub id of a model")
    export.add_argument("--output_dir", required=True, help="folder of the checkpoint")
    _add_loading(export)

    backbone = add("backbone", "write a GGUF checkpoint as an ordinary folder", _backbone)
    backbone.add_argument("--gguf", metavar="FILE", required=True, help="the GGUF file")
    backbone.add_argument("--output_dir", required=True, help="folder of the backbone")
    backbone.add_argument(
        "--torch_dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="dtype of the weights (default: %(default)s)",
    )
    backbone.add_argument(
        "--source", metavar="ID", help="the original model on the Hub (default: what the file says)"
    )
    backbone.add_argument(
        "--licence", metavar="TEXT", help="the model's licence (default: what the file says)"
    )

    push = add("push", "send a model to the Hub", _push)
    push.add_argument("--model", required=True, help="folder of a model")
    push.add_argument("--repo_id", required=True, help="name on the Hub: OWNER/NAME")
    push.add_argument("--private", action="store_true", help="make the repository private")
    push.add_argument("--dry_run", action="store_true", help="print card and files, send nothing")


def _add_loading(command: argparse.ArgumentParser) -> None:
    command.add_argument("--revision", help="commit, tag or branch of a model on the Hub")
    command.add_argument("--base_model", help="load this backbone instead of the recorded one")
    command.add_argument(
        "--torch_dtype",
        choices=("auto", "float32", "bfloat16", "float16"),
        help="dtype of the backbone (default: the one it was trained in)",
    )
    command.add_argument(
        "--load_in_4bit",
        nargs="?",
        const=True,
        type=_true_or_false,
        metavar="true|false",
        help="quantise the backbone to 4 bits, or do not (default: as it was trained)",
    )
    command.add_argument("--device", help="where to compute (default: the accelerator, or cpu)")
    command.add_argument(
        "--trust_remote_code",
        action="store_true",
        help="run the Python code that the backbone's repository brings",
    )


def _true_or_false(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"`{text}` is neither true nor false")
    return text.lower() == "true"


def _loading(known: argparse.Namespace) -> dict[str, Any]:
    names = ("revision", "base_model", "torch_dtype", "load_in_4bit", "device", "trust_remote_code")
    return {name: getattr(known, name) for name in names}


def _recommend(known: argparse.Namespace, _: Sequence[str]) -> None:
    import json
    from dataclasses import asdict

    from delrec_hf.recommender import Recommender

    recommender = Recommender.from_pretrained(known.model, **_loading(known))
    found = recommender.recommend(
        known.history,
        known.candidates,
        top_k=known.top_k,
        with_teacher=known.with_teacher,
        retrieve=known.retrieve,
    )
    if known.json:
        print(json.dumps([asdict(one) for one in found], ensure_ascii=False, indent=2))
        return
    if found[0].teacher is None:
        print("ranked by the language model alone")
    else:
        print("ranked by the language model and its teacher: score, and each one's own with rank")
    for rank, one in enumerate(found, start=1):
        parts = ""
        if one.teacher is not None:
            parts = f"{one.language_model:9.3f} ({one.language_model_rank})"
            parts += f"{one.teacher:9.3f} ({one.teacher_rank})"
        print(f"{rank:>3}  {one.score:9.3f}{parts}  {one.title}")


def _serve(known: argparse.Namespace, _: Sequence[str]) -> None:
    try:
        from delrec_hf.server import serve
    except ModuleNotFoundError as missing:
        if missing.name not in ("fastapi", "uvicorn"):
            raise
        raise InputError(
            f"`delrec serve` needs {missing.name}: `pip install 'delrec-hf[serve]'` (in a "
            "checkout: `pip install -c constraints.txt fastapi uvicorn`)"
        ) from missing

    serve(known.model, known.host, known.port, **_loading(known))


def _export(known: argparse.Namespace, _: Sequence[str]) -> None:
    from delrec_hf.modeling.export import export

    export(known.model, known.output_dir, **_loading(known))


def _backbone(known: argparse.Namespace, _: Sequence[str]) -> None:
    from delrec_hf.modeling.gguf import convert_gguf

    convert_gguf(
        known.gguf,
        known.output_dir,
        torch_dtype=known.torch_dtype,
        licence=known.licence,
        source=known.source,
    )


def _push(known: argparse.Namespace, _: Sequence[str]) -> None:
    from delrec_hf.hub.push import push

    push(known.model, known.repo_id, private=known.private, dry_run=known.dry_run)
