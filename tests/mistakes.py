"""Mistakes that people make at the command line, as they are typed, and the sentence that each ends with."""

from typing import NamedTuple


class Mistake(NamedTuple):
    """A line for a shell, a part of the answer, and whether it needs none of the files of the tests' desk."""

    line: str
    says: str
    anywhere: bool = False


RUN = "python -m monai.bundle run --config_file"
INFER = f"{RUN} configs/inference.yaml --checkpoint model.pt --output_dir out --track no"
RECORDED = f"{INFER.removesuffix(' --track no')} --input photographs"
TRAIN = f"{RUN} configs/train.yaml --manifest manifest.json --output_dir out --track no"
EVALUATE = TRAIN.replace("configs/train.yaml", "\"['configs/train.yaml','configs/evaluate.yaml']\"")
LESIONS = f"{TRAIN} --beta 0 --label_update False --pretrained False"
PREDICT = "fundus predict photographs --checkpoint model.pt"

CLINICIANS = [
    Mistake("fundus predict nowhere.jpg", "found nothing at nowhere.jpg", anywhere=True),
    Mistake("fundus predict '~/photographs'", "only without quotes", anywhere=True),
    Mistake(r"fundus predict 'C:\Users\me\eye.jpg'", r"found nothing at C:\Users\me\eye.jpg", anywhere=True),
    Mistake("fundus predict photographs/a.png,photographs/b.png", "words apart for `fundus predict`"),
    Mistake("fundus predict photographs.zip", "unpack it, and name the folder"),
    Mistake("fundus predict letters", "found letter.docx"),
    Mistake("fundus predict photographs --output photographs", "unknown option --output,"),
    Mistake("fundus predict photographs -o out", "), got '-o'"),
    Mistake(f"{PREDICT} --output_dir photographs/results", "expected --output_dir apart from --input"),
    Mistake(f"{PREDICT} --output_dir /dev/null/results", "expected an --output_dir that can be written"),
    Mistake("fundus predict photographs --checkpoint", "expected a value after --checkpoint", anywhere=True),
    Mistake("fundus predict photographs --checkpoint folder", "expected weights at folder, found a folder"),
    Mistake("fundus predict photographs --checkpoint manifest.json", "in manifest.json, got: UnpicklingError"),
    Mistake("fundus predict photographs --checkpoint cut.pt", "in cut.pt, got: BadZipFile"),
    Mistake(f"{PREDICT} --patient_pattern '(.+'", "--patient_pattern"),
    Mistake(f"{PREDICT} --patient_pattern 'left|right'", "--patient_pattern"),
    Mistake("fundus predit photo.jpg", "expected one of prepare, pipeline", anywhere=True),
]  # fmt: skip

RESEARCHERS = [
    Mistake(f"{TRAIN} --fold one", "expected --fold as a whole number, 0 or more, or null, got 'one'"),
    Mistake(f"{TRAIN} --max_epochs -3", "expected --max_epochs as a whole number, 1 or more, got '-3'"),
    Mistake(f"{TRAIN} --learning_rate 0,001", "expected --learning_rate as a number, 0 or more, got '0,001'"),
    Mistake(f"{TRAIN} --beta 80%", "expected --beta as a number, got '80%'"),
    Mistake(f"{TRAIN} --max_epochs=1e2", "expected --max_epochs as a whole number, 1 or more, got '1e2'"),
    Mistake(f"{TRAIN} --fold 9", "expected a fold in 0-2 or none, got 9"),
    Mistake(f"{TRAIN} --input photographs", "unknown option 'input'"),
    Mistake(f"{LESIONS} --encoder vgg61", "expected encoder in ['vgg16', "),
    Mistake(f"{TRAIN} --network_def#widht 0.5", "did you mean 'network_def#width'?"),
    Mistake(f"{TRAIN} --pseudo_labels manifest.json", "expected pseudo-labels"),
    Mistake(f"{RUN} configs/train.yaml --manifest table.csv --track no", "expected a manifest (JSON) in table.csv"),
    Mistake(f"{RUN} configs/train.yaml --manifest cut.json --track no", "expected a manifest (JSON) in cut.json"),
    Mistake(f"{RUN} configs/train.yaml --manifest folder --track no", "expected a manifest at folder"),
    Mistake(f"{RUN} configs/pseudo_label.yaml --manifest manifest.json --graders a.pt,b.pt --track no", "a.pt,b.pt"),
    Mistake(f"{EVALUATE} --checkpoint grader.pt", "expected weights of"),
    Mistake(f"{EVALUATE} --checkpoint model.pt --split validation", "expected --split"),
    Mistake("fundus prepare --dataset idrd --root DIR --out a.json", "expected --dataset out of", anywhere=True),
    Mistake("fundus prepare --dataset idrid --root photographs --out a.json", "IDRiD"),
    Mistake("fundus prepare --dataset idrid --root table.csv --out a.json", "table.csv"),
    Mistake(
        "fundus prepare --dataset idrid --root DIR --out a.json --folds five", "expected --folds as int, got 'five'"
    ),
    Mistake("fundus prepare --dataset folder --root . --images photographs --masks MA:masks --out a.json", "MA:masks"),
    Mistake("fundus prepare --dataset joined --root manifest.json,table.csv --out a.json", "in table.csv"),
    Mistake("fundus pipeline --manifest manifest.json --experiment nmoke", "expected --experiment out of"),
    Mistake("fundus pipeline --manifest idrid.jsn", "expected a manifest at idrid.jsn", anywhere=True),
    Mistake(
        "fundus pipeline --manifest manifest.json --output_dir table.csv",
        "expected an --output_dir that can be written",
    ),
    Mistake("fundus pipeline --manifest manifest.json --until training", "training"),
    Mistake("fundus sweep --suite table9 --manifest manifest.json", "table9"),
    Mistake("fundus compare --suite table1 --sweep nowhere", "nowhere", anywhere=True),
]

ENGINEERS = [
    Mistake(
        f"{INFER} --input photographs --device cuda:9", "expected --device as a device of this machine: cpu, cuda,"
    ),
    Mistake(f"{INFER} --input photographs --device CPU", "expected --device"),
    Mistake(f"{INFER} --input photographs --backend openvno", "expected"),
    Mistake(
        f"{INFER} --input photographs --lesion_thresholds 0.5", "expected --lesion_thresholds as a list of numbers"
    ),
    Mistake(f"{INFER} --input photographs --lesion_thresholds '[0.5, 0.5]'", "expected lesion thresholds"),
    Mistake(f"{INFER} --input photographs --window_px 500", "500"),
    Mistake(f"{INFER} --input photographs --num_workers all", "expected --num_workers as a whole number"),
    Mistake(f"{INFER} --input photographs --tags row=unet", "expected --tags as a mapping, or null, got 'row=unet'"),
    Mistake(f"{INFER} --inptu photographs", "unknown option 'inptu': did you mean 'input'?"),
    Mistake(f"{INFER} --input photographs/a.png photographs/b.png", "expected options as --name value"),
    Mistake(f"{RECORDED} --tracking_uri http://127.0.0.1:9", "expected an MLflow store that can be written"),
    Mistake(f"{RECORDED} --tracking_uri localhost:5000", "expected --tracking_uri as http://localhost:5000"),
    Mistake(f"{RECORDED} --tracking_uri http://127.0.0.1:mlflow", "expected an MLflow store that can be written"),
    Mistake("fundus run --config_file configs/trian.yaml", "expected a config (.yaml or .json)", anywhere=True),
    Mistake("fundus run --config_file configs", "expected a config (.yaml or .json)", anywhere=True),
    Mistake("fundus run --config_file configs/evaluate.yaml", "which goes on top of one", anywhere=True),
    Mistake("fundus run --config_file configs/inference.yaml --input %eyes", "is ./%eyes", anywhere=True),
    Mistake("fundus run --config_file configs/inference.yaml --input a.jpg b.jpg c.jpg", "got 'b.jpg'", anywhere=True),
    Mistake("fundus run --config_file configs/inference.yaml –input a.jpg", "got '–input'", anywhere=True),  # noqa: RUF001
    Mistake("fundus run configs/inference.yaml", "got 'configs/inference.yaml'", anywhere=True),
    Mistake("fundus run --config_file broken.yaml", "expected YAML in broken.yaml"),
    Mistake(
        "fundus run --config_file configs/inference.yaml --input nowhere", "found nothing at nowhere", anywhere=True
    ),
    Mistake("fundus export --checkpoint manifest.json --format onnx", "in manifest.json, got: UnpicklingError"),
    Mistake("fundus export --checkpoint model.pt --format onxx", "onxx"),
    Mistake("fundus package --checkpoint grader.pt", "got weights of 'Grader'"),
    Mistake("fundus benchmark infernce", "expected one of attribution, data, inference, labels, meta", anywhere=True),
]

MISTAKES = [*CLINICIANS, *RESEARCHERS, *ENGINEERS]
