"""CIFAR-100 (Krizhevsky 2009): 50,000 + 10,000 colour images of 32x32 in 100 classes of 20 kinds, in the Hugging Face schema or
as its author publishes them: in pickles, of which none is run, or binary, in their folder or packed.

Looked for in `data.root`, then `$LAUNCHER_DATA/cifar100`; where it is in neither, one line says how to fetch it (`uoft-cs/cifar100`).
"""

from __future__ import annotations

from dataclasses import replace

from data.options import one_of
from data.vision.hf_images import HubImages, Published
from data.vision.layouts import Binary, Pickles

FINE = """apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle caterpillar
cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house
kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid
otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew
skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout
tulip turtle wardrobe whale willow_tree wolf woman worm"""
COARSE = """aquatic_mammals fish flowers food_containers fruit_and_vegetables household_electrical_devices household_furniture insects
large_carnivores large_man-made_outdoor_things large_natural_outdoor_scenes large_omnivores_and_herbivores medium_mammals
non-insect_invertebrates people reptiles small_mammals trees vehicles_1 vehicles_2"""
CLASSES = {"fine": tuple(FINE.split()), "coarse": tuple(COARSE.split())}
NAMES = {"fine": "cifar100", "coarse": "cifar100-coarse"}
"""In the cache: the images are the same and the labels others."""


class CIFAR100(HubImages):
    def __init__(
        self,
        root: str | None = None,
        labels: str = "fine",
        cache: str | None = None,
        validation: int = 2000,
        seed: int = 0,
        pad: int = 4,
        flip: bool = True,
        cutout: int = 0,
        train_samples: int | None = None,
        fingerprint: str | None = None,
        max_corrupt: int = 0,
        duplicates: str = "keep",
        unlabelled: str = "refuse",
    ) -> None:
        """`labels`: fine, the 100 classes, or coarse, the 20 that they are kinds of. The others are those of `HubImages`. Raises ValueError
        naming the option."""
        one_of("data.labels", labels, tuple(CLASSES))
        classes, which = CLASSES[labels], ("coarse", "fine").index(labels)
        pickles = Pickles("cifar-100-python", (32, 32), len(classes), ("train",), ("test",), label=f"{labels}_labels")
        binary = Binary("cifar-100-binary", (32, 32), len(classes), ("train.bin",), ("test.bin",), label_bytes=2, which=which)
        packed = replace(pickles, archive="cifar-100-python.tar.gz"), replace(binary, archive="cifar-100-binary.tar.gz")
        published = Published(
            "CIFAR-100", "cifar100", "uoft-cs/cifar100", "cifar100", (32, 32), classes, label=f"{labels}_label",
            others=(pickles, binary, *packed), kept=NAMES[labels],
        )  # fmt: skip
        super().__init__(
            published, root, cache, validation, seed, pad, flip, cutout, train_samples, fingerprint, max_corrupt, duplicates, unlabelled
        )
