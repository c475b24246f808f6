"""Lines that each command's help shows: what they do, and what is typed. For the command line (`console`) alone.

Every line is taken by its command as it stands (a test gives it to it), and fits a terminal of 80 columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Example = tuple[str, str]
"""What a line does, and the line."""

EXAMPLES: Mapping[str, Sequence[Example]] = {
    "": [
        ("features of every clip, then a head on them", "featurize --model flow"),
        ("", "train-head --store flow.zarr"),
        ("look at them", "probe --store flow.zarr"),
        ("what the options of a command are", "reelbank featurize --help"),
    ],
    "analyses": [("what `probe` can look at", "reelbank analyses")],
    "backbones": [
        ("all of them", "reelbank backbones"),
        ("those whose name holds dino", "reelbank backbones dino"),
        ("for a program", "reelbank backbones --json"),
    ],
    "completion": [
        ("kept where the shell reads it", "reelbank completion bash > ~/.reelbank-completion"),
        ("what it is", "reelbank completion zsh"),
    ],
    "doctor": [
        ("this machine", "reelbank doctor"),
        ("and the clips of a manifest", "reelbank doctor --manifest manifest.csv"),
        ("how long a run takes", "reelbank doctor --manifest manifest.csv --model flow"),
        ("with other frames", "reelbank doctor --model dinov2 --sampling fps:4"),
    ],
    "explain": [
        ("where Ego-RNN looks in a clip", "reelbank explain --run ego --clip clip_00001"),
        ("with every frame", "reelbank explain --run ego --clip clip_00001 --frames frames.zarr"),
        ("beside another run", "reelbank explain --run ego --beside ego-motion --clip clip_00001"),
        (
            "what speaks for two classes",
            "reelbank explain --run ego --clip clip_00001 --gradcam --class up --class left",
        ),
    ],
    "featurize": [
        ("motion of every clip, 16 pairs of frames each, into flow.zarr", "featurize --model flow"),
        ("two backbones share one decode", "featurize --manifest m.csv --model dinov2 --model flow"),
        ("four frames per second of the training clips", "featurize --model dinov2 --sampling fps:4 --split train"),
        ("other frames in another store", "featurize --model flow --sampling uniform:4 --out flow-4.zarr"),
    ],
    "find": [
        ("most like a clip", "reelbank find --store flow.zarr --clip clip_00001"),
        ("most like a file", "reelbank find --store flow.zarr --video new.mp4"),
        ("step by step, of other people", "reelbank find --clip clip_00001 --level step --other-groups"),
    ],
    "heads": [("what `train-head --head` takes", "reelbank heads")],
    "losses": [("what `train-head --loss` takes", "reelbank losses")],
    "manifest": [
        ("a folder per class", "reelbank manifest folder videos"),
        ("any table, its columns mapped", "reelbank manifest csv calories.csv --map video=file"),
        ("videos to try everything on", "reelbank manifest synth demo"),
    ],
    "manifest brace": [("", "reelbank manifest brace path/to/brace --out brace.csv")],
    "manifest csv": [
        ("columns by their names", "reelbank manifest csv calories.csv --map video=file --map group=person"),
        ("videos in another folder", "reelbank manifest csv clips.csv --root path/to/videos"),
        ("a class that training never sees", "reelbank manifest csv clips.csv --unknown rowing"),
    ],
    "manifest folder": [
        ("a class per folder: videos/walk/a.mp4", "reelbank manifest folder videos"),
        ("another cut into train and test", "reelbank manifest folder videos --seed 1 --out other.csv"),
    ],
    "manifest gtea61": [("", "reelbank manifest gtea61 path/to/gtea61 --rate-fps 15")],
    "manifest hmdb51": [
        ("split 1", "reelbank manifest hmdb51 path/to/hmdb51"),
        ("split 2", "reelbank manifest hmdb51 path/to/hmdb51 --splits path/to/splits --fold 2"),
        ("some classes, a tenth is val", "reelbank manifest hmdb51 hmdb51 --classes twelve.txt --val-share 0.1"),
        ("val by films", "reelbank manifest hmdb51 hmdb51 --val-share 0.1 --val-by group --groups names"),
    ],
    "manifest intervals": [
        ("a line per interval of a long video", "reelbank manifest intervals cuts.csv --root videos"),
        ("other names of columns", "reelbank manifest intervals cuts.csv --map start=from --map end=to"),
    ],
    "manifest kinetics": [("", "reelbank manifest kinetics path/to/kinetics --splits path/to/csv")],
    "manifest penn": [("", "reelbank manifest penn path/to/Penn_Action --rate-fps 30")],
    "manifest stanford40": [
        ("official parts", "reelbank manifest stanford40 path/to/Stanford40"),
        ("named as another set", "reelbank manifest stanford40 path --classes twelve.txt --rename names.csv"),
        (
            "cut anew: a tenth test, a tenth of the rest val",
            "reelbank manifest stanford40 S --merge-splits --val-share 0.1",
        ),
    ],
    "manifest synth": [
        ("120 videos and demo/manifest.csv", "reelbank manifest synth demo"),
        ("fewer, others", "reelbank manifest synth small --clips 24 --seed 7"),
    ],
    "manifest synth-gtea61": [
        ("160 clips, as GTEA61 lies", "reelbank manifest synth-gtea61 GTEA61"),
        ("every class of every user once", "reelbank manifest synth-gtea61 small --clips 32"),
    ],
    "manifest synth-hmdb51": [
        ("240 clips, as HMDB51 lies", "reelbank manifest synth-hmdb51 drifting"),
        ("more people, one clip of each class", "reelbank manifest synth-hmdb51 d --subjects 20 --clips-per-class 20"),
    ],
    "manifest synth-stanford40": [
        ("480 images, as Stanford 40 lies", "reelbank manifest synth-stanford40 stills"),
        ("fewer, others", "reelbank manifest synth-stanford40 stills --images-per-class 10 --seed 7"),
    ],
    "manifest ucf101": [
        ("split 1", "reelbank manifest ucf101 path/to/UCF-101"),
        ("split 3", "reelbank manifest ucf101 path/to/UCF-101 --fold 3 --out ucf101-3.csv"),
    ],
    "manifest vid2burn": [("", "reelbank manifest vid2burn path/to/videos --labels labels.csv")],
    "metrics": [("what runs report, and what `--metric` takes", "reelbank metrics")],
    "predict": [
        ("the clips of a store", "reelbank predict --run runs/flow-mlp-ce-1 --store flow.zarr"),
        ("new videos, a folder of them", "reelbank predict --run runs/flow-mlp-ce-1 new.mp4 more/"),
        ("of one split", "reelbank predict --run runs/flow-mlp-ce-1 --store flow.zarr --split test"),
    ],
    "probe": [
        ("t-SNE and nearest neighbours of the only store here", "probe"),
        ("clusters and a linear classifier", "probe --store flow.zarr --kmeans 20 --linear"),
        ("every step is a row", "probe --store flow.zarr --tsne --level step --out steps"),
        ("what the clips are, without features", "probe --explore --out exploration"),
    ],
    "recipes": [
        ("the named experiments", "reelbank recipes"),
        ("the rows of one", "reelbank recipes calories/table-3.2"),
        ("trained in minutes", "train-head --store flow.zarr --recipe calories/beyond --quick"),
    ],
    "store": [
        ("what is in a store", "reelbank store info flow.zarr"),
        ("whether its bytes are whole", "reelbank store verify flow.zarr"),
    ],
    "store diff": [
        ("what --resize fast changed", "reelbank store diff dinov2.zarr dinov2-fast.zarr"),
        ("for a program", "reelbank store diff a.zarr b.zarr --json"),
    ],
    "store export": [
        ("a group per clip", "reelbank store export dinov2.zarr dinov2.h5"),
        ("one array for all clips", "reelbank store export dinov2.zarr dinov2.h5 --layout array"),
        ("a .npy file per clip", "reelbank store export clip.zarr out/ --format npy"),
        ("an eighth of float32", "reelbank store export a.zarr a.st --format safetensors --dtype int8"),
    ],
    "store import": [
        ("features of another program", "reelbank store import s3d/ s3d.zarr --manifest m.csv --tap s3d"),
        ("an export back", "reelbank store import dinov2.h5 again.zarr"),
    ],
    "store info": [
        ("taps, shapes, spec, clips", "reelbank store info flow.zarr"),
        ("for a program", "reelbank store info flow.zarr --json"),
    ],
    "store merge": [("", "reelbank store merge all.zarr part-1.zarr part-2.zarr")],
    "store retry": [
        ("what failed", "reelbank store retry flow.zarr"),
        ("after the weights have moved", "reelbank store retry clip.zarr --weights path/to/ViT-B-32.pt"),
    ],
    "store upgrade": [("", "reelbank store upgrade old.zarr")],
    "store verify": [
        ("exit status 1 if anything is wrong", "reelbank store verify flow.zarr"),
        ("mend what can be mended", "reelbank store verify flow.zarr --repair"),
    ],
    "train-head": [
        ("classes, and the target if the store has one", "train-head --store flow.zarr"),
        ("two stores, the calories", "train-head --store dinov2.zarr --store flow.zarr --target kcal"),
        ("cross-validation over groups", "train-head --store flow.zarr --folds 5 --run runs/folds"),
        ("a grid, three seeds each", "train-head --store flow.zarr --sweep lr=1e-3,1e-4 --repeats 3"),
    ],
}
"""{command, as words after `reelbank`: lines}; one that is missing or wrong is a failing test."""
