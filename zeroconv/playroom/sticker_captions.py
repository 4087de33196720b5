"""Plain English for emoji names: 'apple, red' has to become "a red apple, noto style"."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

# names that are no noun phrase, or whose noun is left out
_SPECIAL = {
    "star-struck": "a star-struck face",
    "rolling on the floor laughing": "a face rolling on the floor laughing",
    "zzz": "the letters zzz",
    "dashing away": "a cloud of dust dashing away",
    "dizzy": "a dizzy star",
    "collision": "a collision burst",
    "index pointing up": "an index finger pointing up",
    "index pointing at the viewer": "an index finger pointing at the viewer",
    "hand with index finger and thumb crossed": "a hand with the index finger and thumb crossed",
    "backhand index pointing left": "a backhand index finger pointing left",
    "backhand index pointing right": "a backhand index finger pointing right",
    "backhand index pointing up": "a backhand index finger pointing up",
    "backhand index pointing down": "a backhand index finger pointing down",
    "sign of the horns": "a hand making the sign of the horns",
    "love-you gesture": "a hand making a love-you gesture",
    "palms up together": "two palms up together",
    "biting lip": "a mouth biting its lip",
    "selfie": "a hand taking a selfie",
    "horse racing": "a horse and its jockey racing",
    "woman and man holding hands": "a woman and a man holding hands",
    "busts in silhouette": "two busts in silhouette",
    "t-rex": "a t-rex dinosaur",
    "cherries": "two cherries",
    "cooking": "an egg cooking in a pan",
    "ice": "an ice cube",
    "mate": "a cup of mate",
    "couch and lamp": "a couch and a lamp",
    "fork and knife": "a fork and a knife",
    "fork and knife with plate": "a fork and a knife with a plate",
    "hammer and pick": "a hammer and a pick",
    "hammer and wrench": "a hammer and a wrench",
    "nut and bolt": "a nut and a bolt",
    "wood": "a wooden log",
    "camping": "a camping tent",
    "construction": "a construction barrier",
    "building construction": "a building under construction",
    "foggy": "a foggy city",
    "night with stars": "a night sky with stars",
    "milky way": "the milky way",
    "mount fuji": "mount fuji",
    "statue of liberty": "the statue of liberty",
    "tokyo tower": "the tokyo tower",
    "kaaba": "the kaaba",
    "globe showing europe-africa": "a globe showing europe and africa",
    "globe showing americas": "a globe showing the americas",
    "globe showing asia-australia": "a globe showing asia and australia",
    "metro": "a metro train",
    "light rail": "a light rail train",
    "airplane departure": "a departing airplane",
    "airplane arrival": "an arriving airplane",
    "hourglass done": "an empty hourglass",
    "hourglass not done": "a running hourglass",
    "leaf fluttering in wind": "a leaf fluttering in the wind",
    "high voltage": "a high voltage bolt",
    "tennis": "a tennis racket and ball",
    "bowling": "a bowling ball and pins",
    "cricket game": "a cricket bat and ball",
    "field hockey": "a field hockey stick and ball",
    "ice hockey": "an ice hockey stick and puck",
    "lacrosse": "a lacrosse stick",
    "ping pong": "a ping pong paddle and ball",
    "badminton": "a badminton racket and shuttlecock",
    "performing arts": "two theatre masks",
    "chart increasing with yen": "an increasing chart with a yen sign",
    "chart increasing": "an increasing chart",
    "chart decreasing": "a decreasing chart",
    "locked": "a closed padlock",
    "unlocked": "an open padlock",
    "locked with pen": "a closed padlock with a pen",
    "locked with key": "a closed padlock with a key",
    "x-ray": "an x-ray picture",
    "speaker low volume": "a speaker at low volume",
    "speaker medium volume": "a speaker at medium volume",
    "speaker high volume": "a speaker at high volume",
    "dna": "a dna helix",
    "yin yang": "a yin yang symbol",
    "om": "an om symbol",
    "khanda": "a khanda symbol",
    "multiply": "a multiplication sign",
    "plus": "a plus sign",
    "minus": "a minus sign",
    "divide": "a division sign",
    "infinity": "an infinity sign",
    "wireless": "a wireless sign",
    "cinema": "a cinema sign",
    "information": "an information sign",
    "copyright": "a copyright sign",
    "registered": "a registered sign",
    "trade mark": "a trade mark sign",
    "currency exchange": "a currency exchange sign",
    "vibration mode": "a vibration mode sign",
    "mobile phone off": "a mobile phone off sign",
    "circled m": "a circled letter m",
    "keycap: #": "a keycap with a number sign",
    "keycap: *": "a keycap with an asterisk",
    "mx claus": "mx claus",
    "person in lotus position": "a person in the lotus position",
    "man in lotus position": "a man in the lotus position",
    "woman in lotus position": "a woman in the lotus position",
    "breast-feeding": "a breast-feeding mother",
    "meat on bone": "meat on a bone",
    "money with wings": "money with wings",
    "flag in hole": "a flag in a hole",
    "eye in speech bubble": "an eye in a speech bubble",
    "umbrella on ground": "an umbrella on the ground",
    "face with steam from nose": "a face with steam from the nose",
    "face with open eyes and hand over mouth": "a face with open eyes and a hand over the mouth",
    "face with hand over mouth": "a face with a hand over the mouth",
    "face with tongue": "a face with its tongue out",
    "squinting face with tongue": "a squinting face with its tongue out",
    "winking face with tongue": "a winking face with its tongue out",
    "face without mouth": "a face without a mouth",
    "sun behind cloud": "the sun behind a cloud",
    "sun behind small cloud": "the sun behind a small cloud",
    "sun behind large cloud": "the sun behind a large cloud",
    "sun behind rain cloud": "the sun behind a rain cloud",
    "on arrow": "a button with the word on and an arrow",
    "fleur-de-lis": "a fleur-de-lis",
    "children crossing": "a children crossing sign",
    "raised back of hand": "a raised back of a hand",
    "japanese symbol for beginner": "a japanese symbol for beginners",
    "santa claus": "santa claus",
    "mrs. claus": "mrs claus",
    "check box with check": "a check box with a check",
    "lady beetle": "a ladybug",
    "face exhaling": "an exhaling face",
    "face vomiting": "a vomiting face",
    "flower playing cards": "flower playing cards",
}
_MASS = set(
    "bread|baguette bread|garlic|broccoli|ginger root|bacon|butter|salt|canned "
    "food|cooked rice|curry rice|spaghetti|oden|sushi|dango|popcorn|shaved ice|ice "
    "cream|soft ice cream|sake|bubble "
    "tea|fog|fire|yarn|soap|coral|falafel|fondue|custard|pouring liquid|candy|nail "
    "polish|luggage|thread|heart-eyes".split("|")
)
_SINGULAR = set(
    "bus trolleybus minibus cactus octopus walrus lotus hibiscus compass glass grass dress "
    "cross abacus hippopotamus rhinoceros citrus virus brass canvas moss mess news iris "
    "chess press asparagus kiss stress plus campus us christmas bellows boss us claus".split()
)
_PLURAL = set("people men women children dice teeth feet lungs".split())
_STOP = re.compile(
    r"\b(with|without|of|in|on|and|at|under|behind|facing|holding|over|from|for|to|by|showing|playing|wearing|"
    r"pointed|curving|hugging|wrestling|savoring|blowing|screaming|tilted|lifting|not)\b"
)
# a noun without its article after "person taking", "face with" and the like
_INNER = (
    "bath|veil|turban|skullcap|crown|tuxedo|baby|boat|ball|headscarf|white cane|motorized "
    "wheelchair|manual wheelchair|steamy room|tongue|halo|tear|heart|ribbon|hand over "
    "mouth|thermometer|head-bandage|medical mask|monocle|diagonal mouth|raised eyebrow|peeking "
    "eye|open mouth|wry smile|hearing aid|arrow|carrot|umbrella|straw|spoon|bone|popping "
    "cork|handle|decorative cover|curl|slash|ballot|raised flag|lowered "
    "flag|swirl|garden|pen|face|stick|dot|flash|smile|haircut|massage|cowboy hat|kiss|suit"
)
_INNER_RE = re.compile(
    rf"\b(with|without|taking|rowing|bouncing|feeding|in|getting|wearing|blowing) ({_INNER})\b(?!-)"
)
_SIGN_GROUPS = {"transport-sign", "warning"}
_KIND = {
    "smileys-emotion": "a face",
    "people-body": "a person",
    "animals-nature": "nature",
    "food-drink": "food",
    "travel-places": "a place",
    "activities": "an activity",
    "objects": "an object",
    "symbols": "a symbol",
}
_KIND_BY_SUBGROUP = {
    "animal-": "an animal",
    "plant-": "a plant",
    "transport-sign": "a sign",
    "warning": "a sign",
    "transport-": "a vehicle",
    "sky-": "the sky",
    "hand": "a hand",
    "heart": "a heart",
    "emotion": "a symbol",
    "body-parts": "a body part",
    "cat-face": "a cat",
    "monkey-face": "a monkey",
    "clothing": "clothing",
    "musical-instrument": "a musical instrument",
    "tool": "a tool",
    "time": "a clock",
    "sport": "sport",
    "drink": "a drink",
    "dishware": "dishware",
    "place-building": "a building",
}  # fmt: skip


def noun_phrase(label: str, subgroup: str = "") -> str:
    """The lower-case English noun phrase for an emoji's name, with the article where one belongs:
    "an hourglass".
    """
    name = _quotes(label)
    if name in _SPECIAL:
        return _SPECIAL[name]
    if ": " in name:
        return _with_colon(*name.split(": ", 1))
    if subgroup == "zodiac":
        return f"the {name} zodiac sign"
    if subgroup == "time" and re.search(r"o'clock|-thirty", name):
        return f"a clock at {name}"
    if match := re.fullmatch(r"(a|ab|b|o) button \(blood type\)", name):
        return (
            f'an "{match[1]}" blood type button' if match[1] != "b" else 'a "b" blood type button'
        )
    if name.startswith("input "):
        name += " button"
    if name in {"no one under eighteen"} or (
        subgroup in _SIGN_GROUPS and not re.search(r"sign|room|symbol|closet|crossing", name)
    ):
        name += " sign"
    return with_article(_INNER_RE.sub(lambda match: f"{match[1]} {with_article(match[2])}", name))


def _quotes(label: str) -> str:
    """Lower case, typewriter quotes, no accents, no exclamation marks in the middle of a
    sentence.
    """
    text = label.translate(str.maketrans("\u2019\u201c\u201d", '\'""', "!"))
    text = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return " ".join(text.lower().split())


def _with_colon(head: str, tail: str) -> str:
    """Unicode's own shorthand: "man: red hair", "family: man, woman, boy", "keycap: 5", "man
    walking: facing right".
    """
    if head in {"kiss", "couple with heart", "family"}:
        people = _listed(tail.split(", "))
        return {"kiss": f"a kiss between {people}", "family": f"a family of {people}"}.get(
            head, f"a couple with a heart, {people}"
        )
    if head == "keycap":
        return f"a keycap with the number {tail}"
    if tail == "bald":
        return f"a bald {head}"
    if tail.startswith("facing"):
        return f"{noun_phrase(head)}, {tail}"
    return f"{with_article(head)} with {'a ' if tail == 'beard' else ''}{tail}"


def _listed(people: Sequence[str]) -> str:
    """["man", "girl", "girl"] → "a man and two girls"."""
    plural = {"man": "men", "woman": "women", "child": "children"}
    words = [
        with_article(p) if n == 1 else f"two {plural.get(p, p + 's')}"
        for p, n in Counter(people).items()
    ]
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def with_article(phrase: str) -> str:
    """The phrase with "a" or "an"; plurals, mass nouns and phrases with a determiner of their own
    stay as they are.
    """
    head = _STOP.split(phrase, maxsplit=1)[0].strip() or phrase
    last = re.sub(r"\W", "", head.split()[-1]) if head.split() else ""
    plural = last in _PLURAL or (
        last.endswith("s") and not last.endswith("ss") and last not in _SINGULAR
    )
    determined = phrase.split()[0] in {"a", "an", "the", "two", "no"} and not phrase.endswith(
        "sign"
    )
    if plural or determined or phrase in _MASS:
        return phrase
    # "u" as in unicorn and "one" are spoken with a consonant; "hour" and "x-ray" with a vowel
    vowel = re.match(
        r"[\"']?(?!u(?:ni|se|k)|e[uw]|one\b|one-)(?:[aeiou]|hour|x-|sos\b|ng\b)", phrase
    )
    return f"{'an' if vowel else 'a'} {phrase}"


def kind(group: str, subgroup: str) -> str:
    """A word for the category: "an animal", "food"."""
    for start, word in _KIND_BY_SUBGROUP.items():
        if subgroup.startswith(start):
            return word
    return _KIND.get(group, "an object")


def caption(name: str, style: str, group: str, subgroup: str, key: str) -> str:
    """The caption of one picture; `key` picks one of the templates, the same one for the same key.

    Six in ten read "a red apple, noto style"; the others name the category or turn the phrase
    round.
    """
    choice = hashlib.sha256(f"caption {key}".encode()).digest()[0] % 10
    if choice < 6:
        return f"{name}, {style} style"
    if choice < 8:
        return f"{name}, {kind(group, subgroup)}, {style} style"
    return f"a {style} style picture of {name}"
