"""The commands of a finished model, from recommend to push; and of a backbone's file."""

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from delrec_hf.errors import InputError
from delrec_hf.extras import extra


def add_model_commands(add: Callable[..., Any]) -> None:
    """Add the commands to a command line.

    Args:
        add: Adds one by its name, its description and the function that runs it, and returns its
            parser.
    """
    recommend = add("recommend", "recommend with a finished model", _recommend)
    recommend.add_argument("--model", required=True, help="folder or Hub id of a model")
    recommend.title_lists = ("--history", "--candidates")
    who = recommend.add_mutually_exclusive_group(required=True)
    who.add_argument(
        "--history",
        nargs="+",
        action="extend",
        metavar="TITLE",
        help="titles or ids, oldest first; id:21 and title:21 where 21 is both",
    )
    who.add_argument(
        "--input",
        metavar="FILE",
        help="users as user_id and history (a list), or as user_id, item_id and timestamp; "
        "parquet, csv or json lines",
    )
    recommend.add_argument(
        "--output", metavar="FILE", help="where recommendations for the users of --input go"
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
    _add_with_teacher(recommend)
    recommend.add_argument(
        "--retrieve",
        type=int,
        help="how many items of the catalogue the teacher, or what stands in for it, retrieves",
    )
    recommend.add_argument("--json", action="store_true", help="print JSON")
    recommend.add_argument(
        "--accelerate_config",
        metavar="NAME",
        help="with --input: run in several processes, as the other commands do",
    )
    _add_loading(recommend)

    why = add("explain", "say why an item ranks where it does", _explain)
    why.add_argument("--model", required=True, help="folder or Hub id of a model")
    why.title_lists = ("--history", "--candidate", "--candidates")
    why.add_argument(
        "--history",
        required=True,
        nargs="+",
        action="extend",
        metavar="TITLE",
        help="titles or ids, oldest first",
    )
    why.add_argument("--candidate", required=True, metavar="TITLE", help="what is explained")
    why.add_argument(
        "--candidates",
        nargs="+",
        action="extend",
        metavar="TITLE",
        help="what it is compared with (default: as many as one prompt of training showed)",
    )
    _add_with_teacher(why)
    why.add_argument("--json", action="store_true", help="print JSON")
    why.add_argument("--svg", metavar="FILE.svg", help="write a picture of it")
    _add_loading(why)

    serve = add("serve", "answer over HTTP with a finished model", _serve)
    _add_address(serve, 8000)
    demo = add("demo", "show a finished model on a page in the browser", _demo)
    _add_address(demo, 7860)

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


def _add_address(command: argparse.ArgumentParser, port: int) -> None:
    command.add_argument("--model", required=True, help="folder or Hub id of a model")
    command.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: %(default)s)"
    )
    command.add_argument(
        "--port",
        type=int,
        default=port,
        help="its port (default: %(default)s; 0: any free one)",
    )
    _add_loading(command)


def _add_with_teacher(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--with_teacher",
        nargs="?",
        const=True,
        type=_true_or_false,
        metavar="true|false",
        help="rank with the teacher too, or do not (default: where the model holds one)",
    )


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
    if (known.input is None) != (known.output is None):
        raise InputError("--input and --output go together; give both, or --history alone")
    if known.input is None:
        _recommend_to_one(known)
        return
    if known.json:
        raise InputError("--json prints; the ending of --output decides its format")
    from delrec_hf.batch import recommend_file

    recommend_file(
        known.model,
        Path(known.input),
        Path(known.output),
        candidates=known.candidates,
        top_k=known.top_k,
        with_teacher=known.with_teacher,
        retrieve=known.retrieve,
        **_loading(known),
    )


def _recommend_to_one(known: argparse.Namespace) -> None:
    import json
    from dataclasses import asdict

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("several processes are for --input; --history needs one")
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
    if recommender.teacher is None or all(one.teacher is None for one in found):
        print("ranked by the language model alone")
    else:
        other = recommender.teacher.name.replace("teacher", "its teacher")
        retrieved = f"retrieved by {other}, " if known.candidates is None else ""
        ranked = f"ranked by the language model and {other}: score, and each one's own with rank"
        print(f"{retrieved}{ranked}")
    for rank, one in enumerate(found, start=1):
        parts = ""
        if one.teacher is not None:
            parts = f"{one.language_model:9.3f} ({one.language_model_rank})"
            parts += f"{one.teacher:9.3f} ({one.teacher_rank})"
        print(f"{rank:>3}  {one.score:9.3f}{parts}  {one.title}")


def _explain(known: argparse.Namespace, _: Sequence[str]) -> None:
    import json

    from delrec_hf.errors import InputError
    from delrec_hf.recommender import Recommender

    if known.svg is not None and not known.svg.endswith(".svg"):
        raise InputError(f"--svg is {known.svg}; expected a file that ends in .svg")
    recommender = Recommender.from_pretrained(known.model, **_loading(known))
    found = recommender.explain(
        known.history, known.candidate, known.candidates, with_teacher=known.with_teacher
    )
    if known.svg is not None:
        found.save(known.svg)
    print(json.dumps(found.to_dict(), ensure_ascii=False, indent=2) if known.json else found.text())


def _serve(known: argparse.Namespace, _: Sequence[str]) -> None:
    with extra("serve", ("fastapi", "uvicorn")):
        from delrec_hf.serving.server import serve

    serve(known.model, known.host, known.port, **_loading(known))


def _demo(known: argparse.Namespace, _: Sequence[str]) -> None:
    with extra("demo", ("gradio",)):
        from delrec_hf.demo.server import serve_page

    serve_page(known.model, known.host, known.port, **_loading(known))


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
