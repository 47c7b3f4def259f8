"""The professions of the microworld: where people of each work, with what, and what they do there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from tremorscope.foundations.errors import BadInput, did_you_mean
from tremorscope.instruments.microworld.names import Gender
from tremorscope.instruments.microworld.word_list import phrases


@final
@dataclass(frozen=True)
class Profession:
    """One profession. `leaning` is the gender it goes with where the microworld has a spurious correlation.

    Tasks are what one of them "does", in the third person; no text here holds the profession's own name.
    """

    name: str
    workplace: str
    tool: str
    tasks: tuple[str, ...]
    leaning: Gender


def _profession(name: str, leaning: Gender, workplace: str, tool: str, tasks: str) -> Profession:
    return Profession(name, workplace, tool, phrases(tasks), leaning)


PROFESSIONS = (
    _profession(
        "nurse",
        "female",
        "hospital",
        "thermometer",
        "takes care of patients; checks the temperature of the sick; walks the wards at night; brings medicine to"
        " the bedside; comforts worried families; keeps the charts of the ward; changes the bandages; welcomes "
        "new patients",
    ),
    _profession(
        "professor",
        "male",
        "university",
        "blackboard",
        "gives lectures to large classes; writes long papers about history; sets the final exams; guides students"
        " through their research; leads a small seminar; reads old manuscripts; speaks at conferences; marks "
        "essays",
    ),
    _profession(
        "surgeon",
        "male",
        "clinic",
        "scalpel",
        "performs difficult operations; studies the scans before each operation; washes both hands for five "
        "minutes; leads a team in green gowns; repairs broken bones; explains the operation to each family; "
        "stands for hours under a bright light; trains young doctors",
    ),
    _profession(
        "dentist",
        "female",
        "practice",
        "drill",
        "cleans teeth; fills small holes in teeth; tells children to brush twice a day; fits new crowns; looks at"
        " pictures of jaws; pulls out bad teeth; orders toothpaste and floss; calms people in the chair",
    ),
    _profession(
        "teacher",
        "female",
        "school",
        "globe",
        "explains fractions to children; reads stories to the class; corrects spelling tests; plans the lessons "
        "of the week; takes the class to the museum; talks with parents in the evening; writes on the board; "
        "hands out homework",
    ),
    _profession(
        "lawyer",
        "male",
        "court",
        "contract",
        "argues cases before a jury; drafts contracts; advises clients about the law; reads long statutes; questions "
        "witnesses; settles disputes between neighbours; files appeals; prepares the defence",
    ),
    _profession(
        "baker",
        "male",
        "bakery",
        "oven",
        "kneads dough before sunrise; bakes bread and rolls; decorates cakes; sells fresh loaves; mixes flour and"
        " yeast; takes warm buns out of the oven; cuts a new pie; weighs sugar and butter",
    ),
    _profession(
        "chef",
        "female",
        "restaurant",
        "pan",
        "writes the menu for dinner; seasons the soup; shouts orders across the kitchen; tastes every sauce; buys"
        " fish at the market at dawn; invents new dishes; plates the desserts; sharpens the knives",
    ),
    _profession(
        "farmer",
        "male",
        "farm",
        "tractor",
        "milks the cows; ploughs the fields; harvests the wheat; feeds the chickens; repairs fences; stores hay "
        "for winter; sows barley in spring; looks after a herd of sheep",
    ),
    _profession(
        "gardener",
        "female",
        "park",
        "rake",
        "trims the hedges; plants tulips; waters the flower beds; cuts back the roses; pulls out weeds; sweeps up the "
        "leaves; grows seedlings under glass; mows the lawn",
    ),
    _profession(
        "carpenter",
        "male",
        "workshop",
        "saw",
        "builds tables from oak; planes long boards; makes wooden stairs; measures each plank twice; joins beams "
        "without nails; repairs old chairs; carves door frames; sands the wood smooth",
    ),
    _profession(
        "plumber",
        "male",
        "basement",
        "wrench",
        "mends leaking pipes; installs bathtubs; unblocks sinks; replaces old taps; checks the water pressure; "
        "connects heaters; crawls under floors to find leaks; fits new drains",
    ),
    _profession(
        "tailor",
        "female",
        "studio",
        "needle",
        "sews suits; shortens trousers; measures sleeves; chooses fabric with customers; stitches buttons; "
        "designs wedding dresses; irons every seam; cuts patterns from silk",
    ),
    _profession(
        "mechanic",
        "male",
        "garage",
        "spanner",
        "repairs engines; changes tyres; listens for strange noises in motors; replaces brakes; drains old oil; "
        "tests cars on the road; tightens loose bolts; fixes gearboxes",
    ),
    _profession(
        "pilot",
        "female",
        "airport",
        "headset",
        "flies large planes; checks the instruments before take-off; talks to the control tower; lands in thick "
        "fog; crosses the ocean twice a week; plans the route around storms; greets passengers from the cockpit; "
        "watches the altitude",
    ),
    _profession(
        "sailor",
        "male",
        "harbour",
        "compass",
        "hoists the sails; scrubs the deck; ties strong knots; keeps watch at sea; steers by the stars; coils the"
        " ropes; lowers the anchor; spends months on the waves",
    ),
    _profession(
        "librarian",
        "female",
        "library",
        "catalogue",
        "puts books back on the shelves; stamps the loans; helps readers find novels; orders new titles; keeps "
        "the reading room quiet; repairs torn pages; reminds people of overdue books; sorts the archive",
    ),
    _profession(
        "violinist",
        "female",
        "concert hall",
        "bow",
        "practises scales for hours; tunes four strings; plays in an orchestra; rehearses sonatas; performs "
        "solos; follows the conductor; records chamber music; gives recitals",
    ),
    _profession(
        "dancer",
        "female",
        "theatre",
        "mirror",
        "stretches before every rehearsal; turns on the tips of the toes; learns new steps; leaps across the "
        "stage; wears out many pairs of slippers; performs in ballets; bows to the audience; moves to the rhythm",
    ),
    _profession(
        "coach",
        "male",
        "stadium",
        "whistle",
        "trains a young team; plans the tactics for each match; times the sprints; chooses the players; shouts "
        "from the side of the field; celebrates every goal; sets up cones for practice; gives a talk at half-time",
    ),
    _profession(
        "waiter",
        "male",
        "cafe",
        "tray",
        "takes orders at the tables; carries four plates at once; pours the wine; sets the tables; brings the bill; "
        "recommends the soup of the day; clears the glasses; folds the napkins",
    ),
    _profession(
        "florist",
        "female",
        "flower shop",
        "ribbon",
        "ties bouquets; arranges lilies in vases; delivers roses to weddings; keeps tulips cool; writes cards for"
        " bunches of flowers; makes wreaths; cuts stems at an angle; fills the window with daisies",
    ),
    _profession(
        "journalist",
        "female",
        "newspaper",
        "notebook",
        "interviews politicians; writes articles against the clock; checks every source; reports from the town "
        "hall; asks hard questions; covers elections; takes quick notes; writes the headlines",
    ),
    _profession(
        "photographer",
        "male",
        "gallery",
        "camera",
        "takes portraits; waits for the right light; adjusts the lens; prints black and white pictures; shoots "
        "weddings; carries a heavy tripod; edits pictures at night; develops film in a dark room",
    ),
    _profession(
        "architect",
        "female",
        "drawing office",
        "ruler",
        "draws plans of houses; builds small models of bridges; chooses bricks and glass; designs staircases; "
        "visits building sites with a helmet; calculates the height of roofs; sketches facades; presents plans to"
        " the council",
    ),
    _profession(
        "astronomer",
        "male",
        "observatory",
        "telescope",
        "watches distant galaxies; measures the light of stars; names new comets; waits for clear nights; maps "
        "the craters of the moon; predicts eclipses; follows the paths of planets; counts meteors",
    ),
    _profession(
        "programmer",
        "male",
        "computer lab",
        "keyboard",
        "writes code; hunts for bugs; tests new software; reviews patches; designs databases; reads error "
        "messages; speeds up slow loops; answers questions about the manual",
    ),
    _profession(
        "vet",
        "female",
        "animal clinic",
        "stethoscope",
        "treats sick dogs; vaccinates kittens; listens to the hearts of horses; visits stables; weighs puppies; "
        "puts a cast on a rabbit's leg; calms frightened cats; checks the wings of parrots",
    ),
)
BY_NAME = {profession.name: profession for profession in PROFESSIONS}


def profession_of(name: str) -> Profession:
    """The profession of that name.

    Raises:
        BadInput: If there is none.
    """
    if name not in BY_NAME:
        raise BadInput(
            "profession", got=name, wanted=f"one of {', '.join(BY_NAME)}", remedy=did_you_mean(name, BY_NAME)
        )
    return BY_NAME[name]
