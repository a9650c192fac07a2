"""Small files in the layouts of published prompt sets, with their names and keys."""

from __future__ import annotations

import json
from pathlib import Path

from seedpo.data.prompts.prompt_sets import HPDV3_CATEGORIES

GENEVAL2_ROWS = [
    {
        "prompt": "three red cats",
        "atom_count": 3,
        "vqa_list": [
            ["How many cats are in the image?", "three"],
            ["Are the cats red?", "Yes"],
            ["Are there any cats in the image?", "Yes"],
        ],
        "skills": ["count", "attribute", "object"],
    },
    {"prompt": "a dog", "atom_count": 1, "vqa_list": [["Is there any dog?", "Yes"]], "skills": ["object"]},
]

DPG_COLUMNS = (
    "item_id,text,keywords,proposition_id,dependency,category_broad,category_detailed,tuple,question_natural_language"
)
DPG_ROWS = [
    'COCO12,"a long ""prompt"", with a fox",,1,0,entity,whole,entity - whole (fox),Is there a fox?',
    'COCO12,"a long ""prompt"", with a fox",,2,1,attribute,color,"attribute - color (fox, red)",Is the fox red?',
    'COCO12,"a long ""prompt"", with a fox",,3,"1, 2",relation,spatial,"(fox, snow)","Is the fox in snow, alone?"',
    "p0,a long prompt without one,,1,0,global,,global - (photo),Is this a photo?",
]


def geneval2_file(folder: Path) -> Path:
    path = folder / "geneval2_data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in GENEVAL2_ROWS), encoding="utf-8")
    return path


def dpg_file(folder: Path) -> Path:
    path = folder / "dpg_bench.csv"
    path.write_text("\n".join([DPG_COLUMNS, *DPG_ROWS]) + "\n", encoding="utf-8")
    return path


def hpdv3_files(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name in HPDV3_CATEGORIES:
        rows = [{"image_path": f"{row}.jpg", "caption": f"{name} {row}"} for row in range(2)]
        (folder / f"benchmark_{name}.json").write_text(json.dumps(rows), encoding="utf-8")
    return folder


def ocr_files(folder: Path) -> Path:
    prompts = 'a sign that says "Open 24"\na cake with "Happy, Birthday" on it\n'
    (folder / "train.txt").write_text(prompts, encoding="utf-8")
    (folder / "test.txt").write_text('a mug with "Tea"\n', encoding="utf-8")
    return folder
