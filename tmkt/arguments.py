"""The arguments of the command `tmkt`."""

import argparse
from typing import Any

from . import __version__

# Names of the simulator's cameras, motions and formats, and of the export's formats, whose tables would take seconds to
# import.
CAMERAS = ("any", "nmnist", "ncaltech101")
MOTIONS = ("any", "nmnist", "ncaltech101", "cifar10dvs", "handheld")
FORMATS = ("npz", "bin", "evt3")
EXPORT_FORMATS = ("torch", "nir")

EXAMPLES = """\
examples:
  tmkt demo                           # needs no data; one to two minutes
  tmkt train configs/nmnist.yaml      # MNIST images to N-MNIST recordings
  tmkt train configs/nmnist.yaml transfer.method=sliding out=runs/sliding
  tmkt data check DIR --sensor 34 34  # names each damaged recording
  tmkt data simulate IMAGES OUT --n 3 # writes recordings of your images
  tmkt eval runs/nmnist --events DIR  # tests a trained run on other recordings
  tmkt compare configs/nmnist.yaml --methods tmkt sliding --seeds 1 2 --jobs 2
  tmkt export runs/nmnist model       # one folder to hand on, with a card
  tmkt diagnose runs/nmnist           # gradient variance, CKA, t-SNE
  tmkt profile runs/nmnist            # synaptic operations, energy, speed
  tensorboard --logdir runs           # curves while it trains

files of a run (out=...):
  config.yaml        every setting, as the run used it
  split.json         the recordings that trained, validated and tested, and the
                     images that were paired with them
  metrics.jsonl      one JSON record per log point: environment, train,
                     validation or test
  predictions.jsonl  name, label and predicted class of each test recording
  tensorboard/       the same metrics for TensorBoard
  checkpoints/       step-<n>/ with checksums; the same command resumes from the
                     last one (docs/training.md)
  model.safetensors  the trained weights, once the run is finished

Recordings lie in <class>/<id>.bin (N-MNIST / N-Caltech101 format), .aedat,
.aedat4, .dat, .raw, .npz, .npy, .h5, .mat or .csv (docs/data.md). A folder has
the name of its class in the static set. Settings are explained in
configs/nmnist.yaml.
"""


def build_parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="tmkt",
        description="Train spiking networks on event-camera recordings with knowledge from static\n"
        "images, by time-step mixup (TMKT, arXiv 2511.12150).",
        epilog=EXAMPLES,
        formatter_class=raw,
    )
    parser.add_argument("--version", action="version", version=f"tmkt {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    demo = commands.add_parser(
        "demo",
        help="compare three methods on a few simulated recordings, with figures",
        description="Train three methods on a few simulated recordings and MNIST images, test them on other "
        "recordings, and draw four figures. It takes one to two minutes on two CPU cores and needs no data.",
        epilog="example: tmkt demo --out runs/demo --seed 1",
    )
    demo.add_argument("--out", default="runs/demo", help="folder for runs, figures and the table (default: runs/demo)")
    demo.add_argument("--seed", type=int, default=42, help="seed of data, weights and training (default: 42)")
    demo.add_argument(
        "override", nargs="*", default=[], metavar="key=value", help="settings of all its runs, e.g. train.steps=100"
    )

    train = commands.add_parser(
        "train",
        help="train one run from a YAML configuration",
        description="Train one run. The last line printed is its accuracy on the held-out test recordings.",
        epilog="example: tmkt train configs/nmnist.yaml train.steps=200 out=runs/short",
    )
    train.add_argument("config", metavar="CONFIG.yaml", help="settings, as in configs/nmnist.yaml")
    train.add_argument(
        "override", nargs="*", default=[], metavar="key=value", help="e.g. train.lr=1e-3 model.name=vgg_snn"
    )

    evaluate = commands.add_parser(
        "eval",
        help="accuracy of a finished run, on its test recordings or on a folder of others",
        description="Test a finished run. The last line printed is `accuracy: 0.xxxx (n/N)`, over the recordings "
        "that the run has not seen. If the run was trained or validated on some of them, the lines before it count "
        "unseen, validated and trained recordings separately. Recordings are recognised by their content.",
        epilog="example: tmkt eval runs/nmnist --events /data/N-MNIST/Test",
    )
    evaluate.add_argument("run", metavar="RUN_DIR", help="folder of a finished `tmkt train`")
    evaluate.add_argument(
        "--events", metavar="DIR", help="folder of <class>/<id>.<ext>; default: the run's own test recordings"
    )
    evaluate.add_argument("--json", action="store_true", help="print one JSON object instead")
    _add_export(commands)
    _add_data(commands)
    _add_compare(commands)
    _add_diagnose(commands)
    _add_profile(commands)
    return parser


def _add_export(commands: Any) -> None:
    export = commands.add_parser(
        "export",
        help="write a finished run as one folder: weights, settings, classes, model card",
        description="Write a finished run as one folder to hand on, without paths of this machine. `tmkt eval OUT "
        "--events DIR` tests it. README.md is its model card.",
        epilog="example: tmkt export runs/nmnist nmnist-small --format torch nir",
    )
    export.add_argument("run", metavar="RUN_DIR", help="folder of a finished `tmkt train`")
    export.add_argument("out", metavar="OUT", help="folder to write; missing, empty, or an earlier export of this run")
    export.add_argument(
        "--format",
        nargs="+",
        choices=EXPORT_FORMATS,
        default=[],
        help="also as torch: model.pt2 of torch.export, for any batch; nir: model.nir, for networks without branches",
    )


def _add_data(commands: Any) -> None:
    data = commands.add_parser("data", help="check recordings, prepare frames, simulate recordings").add_subparsers(
        dest="data_command", required=True, metavar="{check,prepare,simulate}"
    )
    check = data.add_parser(
        "check",
        help="name each damaged, missing or misplaced recording of a folder",
        description="Read every recording of a folder; exit status 1 if anything is wrong. The last line is a summary.",
        epilog="example: tmkt data check /data/N-MNIST/Train --config configs/nmnist.yaml",
    )
    check.add_argument("folder", metavar="DIR", help="folder of <class>/<id>.<ext>")
    check.add_argument("--sensor", nargs=2, type=int, metavar=("W", "H"), help="name events beyond this sensor")
    check.add_argument("--config", metavar="CONFIG.yaml", help="check against its layout, sensor, classes and images")
    check.add_argument("--run", metavar="RUN_DIR", help="name the recordings of that run which are not there")
    prepare = data.add_parser(
        "prepare",
        help="fill the frame cache of a configuration",
        description="Read all recordings of a configuration into data.cache, from which training then starts at once.",
        epilog="example: tmkt data prepare configs/ncaltech101.yaml data.cache=cache",
    )
    prepare.add_argument("config", metavar="CONFIG.yaml", help="settings, as in configs/nmnist.yaml")
    prepare.add_argument(
        "override", nargs="*", default=[], metavar="key=value", help="e.g. data.time_steps=6 data.cache=DIR"
    )
    simulate = data.add_parser(
        "simulate",
        help="write simulated recordings of the images of a folder",
        description="Simulate an event camera in front of each image of IMAGES/<class>/<image> and write what it "
        "records to OUT/<class>/<image>-<k>.npz (or .bin, .raw). A random camera or path is another one for each "
        "recording.",
        epilog="example: tmkt data simulate photos recordings --camera any --motion handheld --n 3 --sensor 240 180",
    )
    simulate.add_argument("images", metavar="IMAGES", help="folder of <class>/<image>")
    simulate.add_argument("out", metavar="OUT", help="folder for <class>/<image>-<k>.npz; existing files are replaced")
    simulate.add_argument(
        "--camera", choices=CAMERAS, default="any", help="its pixels: any (random), or a published set's (default: any)"
    )
    simulate.add_argument(
        "--motion",
        choices=MOTIONS,
        default="any",
        help="path of the image: any (random), a published set's, or a hand's (default: any)",
    )
    simulate.add_argument("--n", type=int, default=1, help="recordings of each image (default: 1)")
    simulate.add_argument(
        "--sensor", nargs=2, type=int, metavar=("W", "H"), help="size of the sensor (default: that of the image)"
    )
    simulate.add_argument("--seed", type=int, default=0, help="seed of cameras, paths and noise (default: 0)")
    simulate.add_argument(
        "--format",
        choices=FORMATS,
        default="npz",
        help="npz (any sensor), N-MNIST's bin, to 256 x 240, or Prophesee's evt3, .raw, to 2048 x 2048 (default: npz)",
    )


def _add_compare(commands: Any) -> None:
    compare = commands.add_parser(
        "compare",
        help="train a grid of methods, seeds and numbers of recordings, and report with intervals and significance",
        description="Train every method at every number of recordings with every seed, each run by `tmkt train` in a "
        "process of its own. The same command resumes where it was stopped and leaves finished runs alone. Writes "
        "report.html, report.md and results.json.",
        epilog="example: tmkt compare configs/nmnist.yaml train.steps=200 --methods tmkt no_mag:transfer.mag_weight=0 "
        "sliding --seeds 42 1024 90210 --per-class 5,20,80 --jobs 2 --out runs/compare",
    )
    compare.add_argument("config", metavar="CONFIG.yaml", help="settings, as in configs/nmnist.yaml")
    compare.add_argument(
        "override", nargs="*", default=[], metavar="key=value", help="settings of all runs, e.g. train.steps=200"
    )
    compare.add_argument(
        "--methods",
        nargs="+",
        required=True,
        metavar="METHOD",
        help="methods to compare; NAME:key=value[:key=value] is CONFIG with these settings, e.g. an ablation",
    )
    compare.add_argument(
        "--seeds", nargs="+", type=int, required=True, metavar="SEED", help="each trains every method once"
    )
    compare.add_argument(
        "--per-class",
        type=_integers,
        default=[],
        metavar="N,N",
        help="recordings per class to train on (default: CONFIG's)",
    )
    compare.add_argument("--jobs", type=int, default=1, help="runs at a time; they share the cores (default: 1)")
    compare.add_argument("--out", default="runs/compare", help="folder for runs and report (default: runs/compare)")


def _add_diagnose(commands: Any) -> None:
    diagnose = commands.add_parser(
        "diagnose",
        help="gradient variance, alignment of the domains, MAG and MRP accuracy of a finished run",
        description="Measure at a finished run's weights: gradient variance of time-step mixup against "
        "whole-sample replacement, CKA of static and event features over layers and steps, accuracy of the MAG and MRP "
        "heads, t-SNE. Writes diagnose.json and pictures to RUN_DIR/diagnose/.",
        epilog="example: tmkt diagnose runs/nmnist --draws 32",
    )
    diagnose.add_argument("run", metavar="RUN_DIR", help="folder of a finished `tmkt train`")
    diagnose.add_argument("--draws", type=int, default=16, help="pairs of gradients per setting (default: 16)")
    diagnose.add_argument("--samples", type=int, default=200, help="test recordings, at most (default: 200)")


def _add_profile(commands: Any) -> None:
    profile = commands.add_parser(
        "profile",
        help="synaptic operations, firing rates, energy, latency and memory; times of a training step",
        description="Profile a finished run on its test recordings, with the stages of its training step, written to "
        "RUN_DIR/profile/; the training step of a configuration alone; or a backbone with untrained weights on random "
        "frames: its dense operations, latency and memory then mean something, its firing rates do not.",
        epilog="examples: tmkt profile runs/nmnist; tmkt profile configs/nmnist.yaml --methods events_only tmkt; "
        "tmkt profile --model vgg_snn --size 48 48 -T 10 --out profiles/vgg",
    )
    profile.add_argument(
        "target", metavar="RUN_DIR|CONFIG.yaml", nargs="?", help="folder of a finished `tmkt train`, or settings"
    )
    profile.add_argument(
        "override", nargs="*", default=[], metavar="key=value", help="settings of CONFIG.yaml, e.g. train.batch=64"
    )
    profile.add_argument(
        "--methods",
        nargs="+",
        default=[],
        metavar="METHOD",
        help="methods whose training step is timed, as for compare (default: that of the run or of CONFIG.yaml)",
    )
    profile.add_argument("--steps", type=int, default=20, help="training steps to time of each method (default: 20)")
    profile.add_argument("--model", metavar="NAME", help="a backbone, e.g. vgg_snn, in place of a run")
    profile.add_argument(
        "--size", nargs=2, type=int, metavar=("W", "H"), default=[48, 48], help="of a frame (default: 48 48)"
    )
    profile.add_argument("-T", "--time-steps", type=int, default=10, help="frames per sample (default: 10)")
    profile.add_argument("--classes", type=int, default=10, help="outputs (default: 10)")
    profile.add_argument("--batch", type=int, default=16, help="samples per training step (default: 16)")
    profile.add_argument("--out", metavar="DIR", help="folder for profile.json and the pictures")


def _integers(text: str) -> list[int]:
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected numbers such as 5,20,80, got {text!r}") from None
