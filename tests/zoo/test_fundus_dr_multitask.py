"""What the Model Zoo's runner runs on a packaged bundle; whoever submits it copies this file to ci/unit_tests/."""

import os
import shutil
import sys
import tempfile
import unittest

import numpy as np
from monai.bundle import ConfigWorkflow
from PIL import Image
from utils import check_workflow

BUNDLE_ROOT = os.path.abspath("models/fundus_dr_multitask")
SMALLEST = {"pretrained": False, "width": 0.0625, "image_size": 64, "max_epochs": 2, "val_interval": 1}


def test_order(test_name1, test_name2):
    """Train before inference."""
    return ("infer" in test_name1) - ("infer" in test_name2)


class TestFundusDRMultitask(unittest.TestCase):
    """Every config on photographs that the bundle draws itself, so that no patient's are needed."""

    def setUp(self):
        self.folder = tempfile.mkdtemp()
        sys.path.insert(0, BUNDLE_ROOT)

    def tearDown(self):
        sys.path.remove(BUNDLE_ROOT)
        shutil.rmtree(self.folder)

    def workflow(self, names, workflow_type, **options):
        """Read configs of the bundle."""
        return ConfigWorkflow(
            workflow_type=workflow_type,
            config_file=[os.path.join(BUNDLE_ROOT, "configs", name) for name in names],
            logging_file=os.path.join(BUNDLE_ROOT, "configs/logging.conf"),
            meta_file=os.path.join(BUNDLE_ROOT, "configs/metadata.json"),
            num_workers=0,
            track=False,
            **options,
        )

    def prepare(self):
        """Draw a data set, and label each outlined photograph by what its lesions allow."""
        from bundle.datasets.build import build_manifest
        from bundle.datasets.readers.idrid import read_idrid
        from bundle.datasets.splits import lesion_labelling
        from bundle.grade_rules import feasible_grades
        from bundle.labels import GRADES
        from bundle.manifest import load_manifest, save_manifest
        from bundle.method.initial_labels import save_pseudo_labels
        from bundle.phantom.tree import write_phantom

        root, path = os.path.join(self.folder, "phantom"), os.path.join(self.folder, "manifest.json")
        numbers = {"num_lesion_train": 6, "num_lesion_test": 2, "num_graded_train": 6, "num_graded_test": 2}
        write_phantom(root, **numbers, width_px=288, height_px=192, seed=3)
        photographs, notes = read_idrid(root)
        save_manifest(build_manifest("phantom", photographs, root, folds=3, notes=notes), path)
        manifest, rows = load_manifest(path), []
        for row in lesion_labelling(manifest):
            feasible = feasible_grades(set(row.masks), row.annotated).grades
            shares = {f"soft_label_{grade}": (grade in feasible) / len(feasible) for grade in GRADES}
            allowed = {f"feasible_{grade}": grade in feasible for grade in GRADES}
            rows.append({"id": row.id, "weight": 1.0, **shares, **allowed})
        labels = os.path.join(self.folder, "pseudo_labels.json")
        save_pseudo_labels(labels, manifest, {}, rows)
        return {"manifest": path, "pseudo_labels": labels, "output_dir": os.path.join(self.folder, "train")}

    def test_train_eval_config(self):
        options = {**self.prepare(), **SMALLEST}
        check_workflow(self.workflow(["train.yaml"], "train", **options), check_properties=True)
        check_workflow(self.workflow(["train.yaml", "evaluate.yaml"], "train", **options))
        assert "metrics.json" in os.listdir(options["output_dir"])

    def test_infer_config(self):
        from bundle.phantom.drawing import draw_photograph

        image = draw_photograph(grade=3, rng=np.random.default_rng(0), width_px=288, height_px=192).image
        source, output = os.path.join(self.folder, "eye.png"), os.path.join(self.folder, "inference")
        Image.fromarray(image).save(source)
        options = {"input": source, "output_dir": output}  # with the packaged weights, at their own size
        check_workflow(self.workflow(["inference.yaml"], "infer", **options), check_properties=True)
        (mask,) = os.listdir(os.path.join(output, "masks"))
        assert Image.open(os.path.join(output, "masks", mask)).size == (288, 192)


if __name__ == "__main__":
    loader = unittest.TestLoader()
    loader.sortTestMethodsUsing = test_order
    unittest.main(testLoader=loader)
