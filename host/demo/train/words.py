"""Pools of words, and words made up on the spot.

Known words teach the language; made-up ones (random syllables) teach the model to copy what stands
in the prompt, so that names, tables and tools it never saw work too.
"""

from random import Random

FIRST = """
Ada Bruno Carla Diego Elena Felix Greta Hugo Iris Jonas Karin Liam Mona Nadia Oskar Petra Quinn
Rosa Stefan Tara Ugo Vera Wanda Xenia Yusuf Zoe Aiko Boris Chloe Dmitri Emma Farid Gina Hiro
Ingrid Jamal Kofi Lena Marco Nina Anna Ben Clara David Eva Frank Grace Henry Ivan Julia Kevin
Laura Mark Nora Oliver Paul Rachel Sam Tom Uma Victor Will Yara Alice Bob Carol Dan Eve John
Jane Mary Peter Maria James Linda Sarah Mike Lucy Leo Mia Noah Amir Priya Ravi Chen Wei Mei Ali
Fatima Omar Sofia Pablo Ana Luis Jack Kate Sven Olga Igor Tim Amy
""".split()
LAST = """
Smith Rossi Tanaka Novak Silva Keller Moreau Jensen Costa Ivanov Okafor Haddad Berg Lopez Nagy
Weber Sato Khan Dubois Olsen Brown Miller Davis Wilson Taylor Clark Lewis Walker Hall Young King
Wright Green Baker Adams Nelson Carter Evans Turner Parker Cook Bell Ward Reed Gray Stone
Fischer Meyer Wagner Becker Schulz Lang Park Kim Lee Wang Li Zhang Singh Patel Gupta Garcia
Perez Torres Flores Rivera Santos Doe Jones Johnson
""".split()
CITIES = (
    """
Paris London Tokyo Berlin Madrid Rome Oslo Vienna Lisbon Prague Dublin Athens Cairo Lima Seoul
Delhi Boston Denver Austin Chicago Sydney Toronto Zurich Munich Milan Turin Porto Bergen Kyoto
Osaka Hamburg Geneva Naples Lyon Nice Brussels Amsterdam Warsaw Budapest Moscow Istanbul Mumbai
Shanghai Beijing Singapore Bangkok Jakarta Manila Melbourne Nairobi Lagos Dallas Houston Miami
Seattle Atlanta Montreal Vancouver Havana Bogota Stockholm Helsinki Copenhagen Krakow Bern Basel
Leeds York Bristol
""".split()
    + [
        "New York",
        "San Francisco",
        "Los Angeles",
        "Cape Town",
        "Hong Kong",
        "Buenos Aires",
        "Tel Aviv",
    ]
)
JOBS = (
    """
engineer teacher doctor pilot chef lawyer farmer writer nurse baker actor judge painter driver
singer plumber carpenter dentist architect designer programmer accountant librarian journalist
photographer mechanic electrician scientist musician waiter barber tailor butcher gardener
firefighter soldier sailor translator manager consultant analyst developer student professor
researcher biologist chemist physicist
""".split()
    + ["data scientist", "software engineer", "taxi driver", "police officer", "project manager"]
)
ITEMS = """
lamp chair table phone camera bottle jacket guitar mirror carpet pencil blanket helmet kettle
ladder book laptop keyboard monitor mouse desk sofa bed pillow towel cup plate spoon knife fork
bag backpack wallet watch ring shirt coat hat shoe sock scarf glove umbrella bicycle scooter
radio printer speaker clock candle vase basket bucket hammer drill saw screw nail brush broom
pan pot toaster blender fridge oven tent drum violin piano notebook pen ruler stapler eraser
envelope ticket poster puzzle doll kite apple orange banana sandwich pizza cookie
""".split()
COLORS = "red blue green black white yellow purple orange brown grey pink silver golden".split()
STATUSES = (
    "open closed paid unpaid pending shipped cancelled active inactive lost overdue delivered"
).split()
DEPARTMENTS = (
    "sales marketing design legal support finance engineering research operations security".split()
)
CATEGORIES = (
    "fiction history science sports music travel toys food garden office poetry health".split()
)
EVENTS = """
meeting workshop concert lecture party conference seminar training exhibition festival interview
wedding dinner lunch webinar hackathon match race auction premiere reunion picnic tournament
ceremony
""".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = (
    "January February March April May June July August September October November December".split()
)
TOPICS = """
budget project report schedule contract invoice holiday release launch strategy survey proposal
review training feedback meeting plan delivery hiring roadmap design website garden party trip
rent insurance
""".split()
LANGUAGES = (
    "French German Spanish Italian Japanese Korean Dutch Polish Greek Turkish English Portuguese"
).split()
CURRENCIES = "USD EUR GBP JPY CHF CAD SEK INR".split()
SMALL_NUMBERS = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
sixteen seventeen eighteen nineteen twenty
""".split()

_ONSETS = (
    "b c d f g h j k l m n p r s t v w z br ch cl cr dr fl gl gr kr pl pr sh sl sp st th tr".split()
)
_VOWELS = "a e i o u a e i o u ai ea io ou".split()
_CODAS = "n r l s t m k d x sh ck nd st rt".split() + [""] * 10


def made_up(r: Random, syllables: tuple[int, int] = (1, 3)) -> str:
    """A lower-case word that means nothing."""
    count = r.randint(*syllables)
    word = "".join(r.choice(_ONSETS) + r.choice(_VOWELS) + r.choice(_CODAS) for _ in range(count))
    return word if len(word) > 2 else word + r.choice("nrslt")


def first_name(r: Random) -> str:
    """A given name, often made up."""
    return r.choice(FIRST) if r.random() < 0.6 else made_up(r).capitalize()


def full_name(r: Random) -> str:
    """Given name and surname."""
    last = r.choice(LAST) if r.random() < 0.6 else made_up(r).capitalize()
    return f"{first_name(r)} {last}"


def city(r: Random) -> str:
    """A place, often made up."""
    return r.choice(CITIES) if r.random() < 0.65 else made_up(r, (2, 3)).capitalize()


def item(r: Random) -> str:
    """A thing one can buy, sometimes made up."""
    return r.choice(ITEMS) if r.random() < 0.75 else made_up(r)


def any_word(r: Random) -> str:
    """Any word at all."""
    return r.choice([first_name, city, item, made_up, lambda r: r.choice(JOBS + COLORS + TOPICS)])(
        r
    )


def number(r: Random) -> str:
    """A number of one to five digits, short ones as likely as long ones."""
    digits = r.choice([1, 2, 2, 3, 3, 4, 4, 5])
    return str(r.randint(10 ** (digits - 1), 10**digits - 1))


def price(r: Random) -> str:
    """A number with or without cents."""
    whole = number(r)[:4]
    return f"{whole}.{r.randint(1, 99):02}" if r.random() < 0.4 else whole


def article(word: str) -> str:
    """The indefinite article that goes before `word`."""
    return "an" if word[0].lower() in "aeiou" else "a"


def plural(word: str) -> str:
    """The regular plural of an English noun."""
    if word.endswith(("s", "x", "ch", "sh")):
        return word + "es"
    if word.endswith("y") and word[-2] not in "aeiou":
        return word[:-1] + "ies"
    return word + "s"
