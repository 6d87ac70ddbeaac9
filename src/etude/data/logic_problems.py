# ruff: noqa: E501 - the listings have one line a file
"""Problems of logical reasoning in words, and recorded translations of them into logic by large language models."""

from __future__ import annotations

import gzip
import json
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, TypeAlias, get_args

from etude.data.locate import SOURCES, Source, listing, locate
from etude.data.rule_worlds import Label, LogicProblem

Translator: TypeAlias = Literal["gpt-4", "gpt-3.5-turbo"]
Problems: TypeAlias = Literal["FOLIO", "ProofWriter", "ProntoQA"]
LincModel: TypeAlias = Literal["gpt-4", "gpt-3.5", "starcoder+"]

FOLIO = Source(
    "folio",
    files=listing(
        """
300db0987dc549d010e99de08db6a9849548f9e5d65073419b2870430201d357 85641 folio-train.jsonl.gz
cd9c090b3bd77ab1e1c42cf959b6687a2aef7ac7a8012812638f226324a2c043 19300 folio-validation.jsonl.gz
        """
    ),
)
TRANSLATIONS = Source(
    "logic-translations",
    files=listing(
        """
37320790667edbf5224f371d694a3bd1648893e5e79dcab21f9017956eb2f80a 12338 problems-FOLIO-dev.json.gz
c5fc8182bea5ad85ec2dbf02ed7ac30932f6f658e99c1dc8b75ffdc91e64cc25 45690 problems-ProntoQA-dev.json.gz
9645edc12c2eb5441cb9b3df5d4634028ab7a03233f2f95cce9fb42d6099874c 57555 problems-ProofWriter-dev.json.gz
3a45988fcabcc628e7efd61d6645cfaa3f174a71334010036ed45a5ce282036a 30971 programs-FOLIO_dev_gpt-3.5-turbo.json.gz
72b742355857d082dd3053bf55b9d21747b30e52cfafb22d5cc3a61c676dc6bb 28579 programs-FOLIO_dev_gpt-4.json.gz
377ea5bf68b67f504c4a51a5d776ffbc99785786e199679c6951ba9f4dc4559a 89954 programs-ProntoQA_dev_gpt-3.5-turbo.json.gz
f81e5bbcd316d41aade820c77a386402f6a8fa4346f1cbdf5188b80afe5d1335 84663 programs-ProntoQA_dev_gpt-4.json.gz
5cd426ad2197ca30946e0bffc8dbf9afd4825ff70e9a2c49a0a11d1e36379df6 179644 programs-ProofWriter_dev_gpt-3.5-turbo.json.gz
20cfd6ba4c9e4d5ac3ac4403cf72a3120cc61d7cf39cfbb962d21636b5bf0e9c 175428 programs-ProofWriter_dev_gpt-4.json.gz
        """
    ),
)
# The outputs have no licence: they are read where the user has them or fetched from their authors, never shipped.
_LINC = "https://raw.githubusercontent.com/benlipkin/linc/718dfe8fae342028a837a96096e5e1e412ad4f2e/outputs/"
LINC_LABELS = Source(
    "linc-outputs",
    address=_LINC,
    files=listing(
        """
c3e2cf6e604db94696f0b0bb9d24fa02052769db1f2441ad0602e8e49080fdfa 20078 gpt-4-0613_folio-neurosymbolic-8shot_generations_prc.json
4f328be0ac85c42fc8feb2957f801f34dfc18b7681120d4dd86ab662c55fafdb 19203 gpt-4-0613_folio-cot-8shot_generations_prc.json
ec67a4a508e5cce63786207f94c08163589270f62a3dbb99910625cfc4eaf039 18665 gpt-4-0613_proofwriter-neurosymbolic-8shot_generations_prc.json
055b4a3314b9602d5cabdc667937551ac2386abbc101b67f8a983edd7827f026 20251 gpt-4-0613_proofwriter-cot-8shot_generations_prc.json
bbeb90c0c093fde2349fb533f580c03a830f3b22d3149ae2b5ef07fb440f1ac6 20003 gpt-3.5-turbo-16k-0613_folio-neurosymbolic-8shot_generations_prc.json
95a1fc9149bf78130fa086033b3c69e1cbcb73aa0855b86ef083cb5a761d5e2a 19818 gpt-3.5-turbo-16k-0613_folio-cot-8shot_generations_prc.json
da10c7ea30a188c74ee48dda89d7c3e266d108dfe499e27083f4b1cf635e229e 36633 gpt-3.5-turbo-16k-0613_proofwriter-neurosymbolic-8shot_generations_prc.json
e117d5ed85005db85ddfe39a91c01c55e9732a9582e5201151ce6674a1013c56 42704 gpt-3.5-turbo-16k-0613_proofwriter-cot-8shot_generations_prc.json
c6fdbf5da4d7047a8b181ec1ff7989fb2c812f176a5dbf8fc7266084319e696e 19177 starcoderplus_folio-neurosymbolic-8shot_generations_prc.json
cdbe0ec322f0852aaf506afa9c1d36b8a5f9c42750010c4f405449134864b8a0 16655 starcoderplus_folio-cot-8shot_generations_prc.json
49c9e585647880101c8b4c6195bf25d802ae74c093bf2fac10b3df1c2d16b54f 36889 starcoderplus_proofwriter-neurosymbolic-8shot_generations_prc.json
68c7f2e6ac8b4812e62b9d8990ce2ae8464bb0147532da8f9e538f51111e1dfd 31521 starcoderplus_proofwriter-cot-8shot_generations_prc.json
f99560f0716decf3a7ab82e0d7ce4262d95bd10c58c71539730875d218380249 1835 gpt-4-0613_folio-neurosymbolic-8shot_references.json
21fab40aed811ebd60ab9213310ecf46044cb87a00dd2014d93d7a654020d8d7 3600 gpt-4-0613_proofwriter-neurosymbolic-8shot_references.json
a1019ff93202c181ce2be7e087e9cea38caaf07a179d644c0082ce2b33862669 1080 pw-qdeps.json
        """
    ),
)
LINC_GENERATIONS = Source(
    "linc-generations",
    address=_LINC,
    folder="linc-outputs",
    files=listing(
        """
7b20e85151e6bfc8084215f7bedd2475f0fb82932ba2701bf817a12a236900de 1400450 gpt-4-0613_folio-neurosymbolic-8shot_generations_raw.json
922541e6b91a66220347690e1def6789e1416190e13baf5bcca58e233eb1f691 2566608 gpt-4-0613_proofwriter-neurosymbolic-8shot_generations_raw.json
b8c07a5dec5d269502e8e74ce52b0f54ced242f518dfbff355e6760415ca40dd 1437409 gpt-3.5-turbo-16k-0613_folio-neurosymbolic-8shot_generations_raw.json
        """
    ),
)
for _source in (FOLIO, TRANSLATIONS, LINC_LABELS, LINC_GENERATIONS):
    SOURCES[_source.name] = _source

_LINC_NAMES = {"gpt-4": "gpt-4-0613", "gpt-3.5": "gpt-3.5-turbo-16k-0613", "starcoder+": "starcoderplus"}
_ANSWERS: dict[str, Label] = {"A": "True", "B": "False", "C": "Uncertain"}


@dataclass(frozen=True)
class Translation:
    """One problem and what a model wrote for it.

    Attributes:
        problem: the problem; for the outputs of LINC only its label and depth are recorded, and its text says so.
        text: what the model wrote.
        label: for the outputs of LINC, the verdict its authors' program gave (``"Error"`` where it gave none).
        sample: which of the model's samples it is.
    """

    problem: LogicProblem
    text: str
    label: str = ""
    sample: int = 0


def folio(part: Literal["train", "validation"] = "validation") -> list[tuple[LogicProblem, tuple[str, ...]]]:
    """FOLIO v0.0 (Han et al., 2022): problems written by people, with formulas in the Unicode notation.

    Args:
        part: ``"train"`` or ``"validation"``.

    Returns:
        Problems, each with its formulas: one a premise, the conclusion's last. Of the training part the conclusions
        have no formula. Some formulas cannot be parsed and some do not agree with the label, as in the original.

    Raises:
        ValueError: another part.
        MissingData: the files are not at hand.
    """
    if part not in ("train", "validation"):
        raise ValueError(f"part: {part!r} was given; 'train' and 'validation' are accepted")
    content = gzip.decompress(locate(FOLIO).paths[f"folio-{part}.jsonl.gz"].read_bytes()).decode()
    found = []
    for number, item in enumerate(map(json.loads, content.splitlines())):
        label: Label = "Uncertain" if item["label"] == "Unknown" else item["label"]
        premises = tuple(text.strip() for text in item["premises"] if text.strip())
        problem = LogicProblem(premises, item["conclusion"].strip(), label, name=f"FOLIO {part} {number}")
        formulas = (
            *filter(str.strip, item["premises-FOL"]),
            *([item["conclusion-FOL"]] if "conclusion-FOL" in item else []),
        )
        found.append((problem, tuple(formulas)))
    return found


def logic_lm_problems(name: Problems) -> list[LogicProblem]:
    """Problems as Logic-LM (Pan et al., 2023) uses them: 204 of FOLIO, 600 of ProofWriter, 500 of ProntoQA.

    A premise is a sentence, which ends with a full stop and a space (so abbreviations in FOLIO divide sentences; `folio`
    has its own premises). ProntoQA's problems are True or False.

    Args:
        name: ``"FOLIO"``, ``"ProofWriter"`` or ``"ProntoQA"``.

    Raises:
        ValueError: another name.
        MissingData: the files are not at hand.
    """
    _check("name", name, Problems)
    return [_problem(item) for item in _read(f"problems-{name}-dev.json.gz")]


def logic_translations(model: Translator, problems: Problems) -> list[Translation]:
    """The programs of logic that a model wrote for Logic-LM, one a problem.

    Args:
        model: ``"gpt-4"`` or ``"gpt-3.5-turbo"``.
        problems: ``"FOLIO"``, ``"ProofWriter"`` or ``"ProntoQA"``.

    Raises:
        ValueError: another model or set.
        MissingData: the files are not at hand.
    """
    _check("model", model, Translator)
    _check("problems", problems, Problems)
    items = _read(f"programs-{problems}_dev_{model}.json.gz")
    return [Translation(_problem(item), item["raw_logic_programs"][0].strip()) for item in items]


@dataclass(frozen=True)
class LincLabels:
    """What the authors of LINC recorded for one model, one set of problems and one mode.

    Attributes:
        labels: per problem, per sample ``"True"``, ``"False"``, ``"Uncertain"`` or ``"Error"``.
        gold: the right label of each problem.
    """

    labels: list[list[str]]
    gold: list[str]


def linc_labels(
    model: LincModel, problems: Literal["folio", "proofwriter"], mode: Literal["linc", "cot"]
) -> LincLabels:
    """The labels of LINC's samples (8 shots; 10 samples, 5 of GPT-4 on ProofWriter).

    Args:
        model: ``"gpt-4"``, ``"gpt-3.5"`` or ``"starcoder+"``.
        problems: ``"folio"`` (182 problems) or ``"proofwriter"`` (360).
        mode: ``"linc"`` or ``"cot"``, chain of thought.

    Raises:
        ValueError: another model, set or mode.
        MissingData: the files are not at hand.
    """
    _check("model", model, LincModel)
    _check("problems", problems, Literal["folio", "proofwriter"])
    _check("mode", mode, Literal["linc", "cot"])
    paths = locate(LINC_LABELS).paths
    kind = "neurosymbolic" if mode == "linc" else "cot"
    labels = json.loads(paths[f"{_LINC_NAMES[model]}_{problems}-{kind}-8shot_generations_prc.json"].read_text())
    gold = json.loads(paths[f"gpt-4-0613_{problems}-neurosymbolic-8shot_references.json"].read_text())
    return LincLabels([[label if label in _ANSWERS.values() else "Error" for label in row] for row in labels], gold)


def linc_translations(
    model: Literal["gpt-4", "gpt-3.5"], problems: Literal["folio", "proofwriter"]
) -> list[Translation]:
    """What models wrote for LINC (8 shots), with the label the authors' program gave to it.

    Args:
        model: ``"gpt-4"``, or for FOLIO also ``"gpt-3.5"``.
        problems: ``"folio"`` or ``"proofwriter"``.

    Raises:
        ValueError: another model or set, or a pair that is not recorded.
        MissingData: the files are not at hand.
    """
    labels = linc_labels(model, problems, "linc")
    name = f"{_LINC_NAMES[model]}_{problems}-neurosymbolic-8shot_generations_raw.json"
    if name not in {file.name for file in LINC_GENERATIONS.files}:
        raise ValueError(f"model: {model!r} on {problems} was given; its texts are not recorded")
    texts = json.loads(locate(LINC_GENERATIONS).paths[name].read_text())
    depths = json.loads(locate(LINC_LABELS).paths["pw-qdeps.json"].read_text()) if problems == "proofwriter" else None
    return [
        Translation(
            LogicProblem(
                ("(the text is not recorded)",),
                "(the text is not recorded)",
                labels.gold[item],  # type: ignore[arg-type]
                int(depths[item]) if depths else None,
                f"{problems} {item}",
            ),
            text,
            labels.labels[item][sample],
            sample,
        )
        for item, row in enumerate(texts)
        for sample, text in enumerate(row)
    ]


def _problem(item: dict[str, Any]) -> LogicProblem:
    question = item["question"].partition("?")[2].strip()
    premises = tuple(re.split(r"(?<=\.)\s+", item["context"].strip()))
    return LogicProblem(premises, question, _ANSWERS[item["answer"]], name=item["id"])


@lru_cache(maxsize=4)
def _read(name: str) -> Any:
    return json.loads(gzip.decompress(locate(TRANSLATIONS).paths[name].read_bytes()))


def _check(name: str, value: object, accepted: Any) -> None:
    if value not in get_args(accepted):
        raise ValueError(f"{name}: {value!r} was given; {', '.join(map(repr, get_args(accepted)))} are accepted")
