"""What reckoned statements are put together from; see `reckoned_statements`.

Besides the slots of `calendar` they have `<long>` for a number of days or months. Verbs come in three forms: for one in
the present, as a command, and in the past.
"""

from __future__ import annotations

from tremorscope.instruments.microworld.composed_statements import Relation
from tremorscope.instruments.microworld.names import FIRST_NAMES
from tremorscope.instruments.microworld.word_list import phrases

NAMED = (*FIRST_NAMES["female"], *FIRST_NAMES["male"])
OWNERS = phrases("the; the; the; the; my; our; her; his; their; this; that; some")

# Somebody sees a day or month and goes from there: in the present, as a command, and in the past.
SEES = phrases(
    "has/have/had; finds/find/found; picks/pick/picked; begins at/begin at/began at; points at/point at/pointed at;"
    " names/name/named; writes/write/wrote; hears/hear/heard; thinks of/think of/thought of; looks at/look at/looked"
    " at; begins with/begin with/began with; chooses/choose/chose; is given/take/was given; starts at/start"
    " at/started at; draws/draw/drew; types/type/typed; remembers/remember/remembered; shows us/show us/showed us"
)
STEPS: dict[Relation, tuple[str, ...]] = {
    "after": phrases(
        "adds <long>/add <long>/added <long>; adds <long> to it/add <long> to it/added <long> to it; puts on"
        " <long>/put on <long>/put on <long>; counts <long> on/count <long> on/counted <long> on; counts up by"
        " <long>/count up by <long>/counted up by <long>; moves on by <long>/move on by <long>/moved on by <long>;"
        " jumps forward by <long>/jump forward by <long>/jumped forward by <long>; steps <long> ahead/step <long>"
        " ahead/stepped <long> ahead; lets <long> pass/let <long> pass/let <long> pass; lets <long> go by/let <long>"
        " go by/let <long> go by; goes on for <long>/go on for <long>/went on for <long>; waits for <long>/wait for"
        " <long>/waited for <long>; advances by <long>/advance by <long>/advanced by <long>; increases it by"
        " <long>/increase it by <long>/increased it by <long>; goes forward <long>/go forward <long>/went forward"
        " <long>; includes another <long>/include another <long>/included another <long>; gives it <long> more/give"
        " it <long> more/gave it <long> more; stays for <long>/stay for <long>/stayed for <long>; appends"
        " <long>/append <long>/appended <long>; proceeds by <long>/proceed by <long>/proceeded by <long>"
    ),
    "before": phrases(
        "takes off <long>/take off <long>/took off <long>; takes <long> off it/take <long> off it/took <long> off"
        " it; takes away <long>/take away <long>/took away <long>; counts <long> back/count <long> back/counted"
        " <long> back; counts down by <long>/count down by <long>/counted down by <long>; goes back by <long>/go"
        " back by <long>/went back by <long>; jumps backward by <long>/jump backward by <long>/jumped backward by"
        " <long>; steps <long> back/step <long> back/stepped <long> back; subtracts <long>/subtract"
        " <long>/subtracted <long>; cuts off <long>/cut off <long>/cut off <long>; removes <long>/remove"
        " <long>/removed <long>; deducts <long>/deduct <long>/deducted <long>; undoes <long>/undo <long>/undid"
        " <long>; decreases it by <long>/decrease it by <long>/decreased it by <long>; goes backward <long>/go"
        " backward <long>/went backward <long>; drops <long>/drop <long>/dropped <long>; makes it <long> less/make"
        " it <long> less/made it <long> less; returns by <long>/return by <long>/returned by <long>; strikes off"
        " <long>/strike off <long>/struck off <long>; rewinds by <long>/rewind by <long>/rewound by <long>"
    ),
}
# The same, done to the day or month itself.
CHANGES: dict[Relation, tuple[str, ...]] = {
    "after": phrases(
        "adds <long> to {start}/add <long> to {start}/added <long> to {start}; adds to {start} another <long>/add"
        " to {start} another <long>/added to {start} another <long>; puts <long> on top of {start}/put <long> on top"
        " of {start}/put <long> on top of {start}; increases {start} by <long>/increase {start} by <long>/increased"
        " {start} by <long>; moves {start} forward by <long>/move {start} forward by <long>/moved {start} forward by"
        " <long>; appends <long> to {start}/append <long> to {start}/appended <long> to {start}; lets {start} be"
        " followed by <long>/let {start} be followed by <long>/let {start} be followed by <long>"
    ),
    "before": phrases(
        "takes <long> from {start}/take <long> from {start}/took <long> from {start}; takes away from {start}"
        " <long>/take away from {start} <long>/took away from {start} <long>; subtracts <long> from {start}/subtract"
        " <long> from {start}/subtracted <long> from {start}; decreases {start} by <long>/decrease {start} by"
        " <long>/decreased {start} by <long>; moves {start} backward by <long>/move {start} backward by <long>/moved"
        " {start} backward by <long>; removes <long> from {start}/remove <long> from {start}/removed <long> from"
        " {start}; lets {start} be preceded by <long>/let {start} be preceded by <long>/let {start} be preceded by"
        " <long>"
    ),
}
COMMAND_ENDS = (
    *(" and say", ": you get", " to get", " and read", ", and it is", "; it is", " and write", ", giving", ": it is"),
    *(" and find", ", then name", " and answer", " and you have", ". You get", ". It is", " =", ":", ", that is"),
)

# What happens to the first and to the second of two subjects: in the past, and behind "had".
HAPPENED = tuple(
    tuple(pair.split("/"))
    for pair in phrases(
        "arrived/arrived; opened/opened; closed/closed; began/begun; ended/ended; stopped/stopped; came/come;"
        " went/gone; left/left; appeared/appeared; vanished/vanished; was seen/been seen; was sold/been sold; was"
        " bought/been bought; was washed/been washed; was found/been found; was lost/been lost; was painted/been"
        " painted; was sent/been sent; was born/been born; fell/fallen; rose/risen; melted/melted; froze/frozen;"
        " burned/burned; moved/moved; changed/changed; rang/rung; woke/woken; wrote/written; called/called;"
        " started/started; returned/returned; answered/answered; was cut/been cut; was made/been made; was"
        " announced/been announced; was taken/been taken; grew/grown; was heard/been heard; was done/been done"
    )
)
LINKS = ("; ", "; ", ". ", ", and ", ", but ", " and ", ", while ", " - ", ": ")
WHEN: dict[Relation, tuple[str, ...]] = {
    "after": phrases(
        "<long> later; <long> later; <long> after that; <long> afterwards; <long> after it; <long> after this;"
        " <long> from then; after <long> more; after another <long>; <long> thereafter; not until <long> later;"
        " <long> behind it; when <long> were over"
    ),
    "before": phrases(
        "<long> earlier; <long> earlier; <long> before that; <long> before; <long> before it; <long> before this;"
        " <long> beforehand; <long> previously; <long> sooner; already <long> earlier; as early as <long> before"
        " that; <long> prior to it; <long> in advance"
    ),
}
IS_ON = phrases("is {on}; is {on}; was {on}; was {on}; is due {on}; was due {on}; was held {on}; will be {on}")
MAKES = phrases("make; clean; write; build; paint; draw; fix; find; read; learn; print; cook; sell; count; draw up")

# Something that is not when it should be.
DUE = phrases("set for; due {on}; meant for; announced for; expected {on}; fixed for; ordered for; asked for {on}")
OFF: dict[Relation, tuple[str, ...]] = {
    "after": phrases(
        "was put off by <long>; was delayed by <long>; was postponed by <long>; came late by <long>; was late by"
        " <long>; came <long> late; was <long> late; had a delay of <long>; took <long> longer; was kept waiting for"
        " <long>; happened <long> too late; slipped by <long>"
    ),
    "before": phrases(
        "came early by <long>; was early by <long>; came <long> early; was <long> early; was <long> too soon; was"
        " <long> ahead of time; was moved up by <long>; happened <long> too early; was ready <long> in advance; came"
        " <long> sooner than that; took <long> less; was <long> ahead of its time"
    ),
}
OFF_ENDS = (
    *(", so it was {on}", ", so {on}", " and was {on}", ", that is {on}", ", namely {on}", ". It was {on}"),
    *(", thus {on}", ", so it came {on}", " and came {on}", ", i.e. {on}", ": {on}", ", which was", ", which means"),
    ", hence {on}",
)
BELIEVED = phrases(
    "thought it was; guessed; believed in; had written; would have said; bet on; expected; hoped for; wanted; voted"
    " for; was told; dreamt of; read"
)
BUT = (", but", ", yet", "; but", ". But", "; in fact", "; however,", ", though", ". In truth", ", and", " -")
TRUTH = phrases(
    "the truth lay; the right one was; it was; it came; the right answer is; it really was; the real one is; it had"
    " to be; we met; the paper said"
)
OTHER: dict[Relation, tuple[str, ...]] = {
    "after": phrases("<long> later; <long> after that; <long> on; <long> further on; <long> past it; <long> onwards"),
    "before": phrases("<long> earlier; <long> before that; <long> back; <long> further back; <long> sooner"),
}
CORRECTED = (
    *(": it was", ", so it was", ": {on}", ", that is", ", namely", ", which is", ". It was", "; it is", " -"),
    *(", thus", ", and so it is", ": the answer is", ", so we say", ", and that was"),
)

GIVEN = phrases(
    "If it is {start}; Suppose it is {start}; Say it is {start}; Let it be {start}; Starting from {start}; With"
    " {start} as the first; Knowing it is {start}; Today being {start}; It is {start}; Here is {start}; Look,"
    " {start}; Assume {start}; Think of {start}; We have {start}; You see {start}; Beginning with {start}; If all"
    " began {on} {start}"
)
GIVEN_LINKS = (", ", ", ", ": ", ". ", "; ", " - ", ", so ", ", and ")
ASKED: dict[Relation, tuple[str, ...]] = {
    "after": phrases(
        "what is it <long> later; what do we get after <long>; what will it be in <long>; what comes when <long>"
        " have gone; what follows once <long> are done; which {unit} is it after <long>; where are we after <long>;"
        " what will they have <long> from now; what do they see when <long> have ended; what does one read <long>"
        " on; what has it become when <long> went by; what shall we have in <long>; what do you say <long> later;"
        " which {unit} do we see once <long> have passed; what is next after <long>; what will she write in <long>"
    ),
    "before": phrases(
        "what was it <long> earlier; what did we get <long> before; what had it been <long> back; which {unit} was"
        " it <long> before that; where were we <long> ago; what did they have <long> earlier; what was it <long>"
        " ago; what did they see <long> before; what did one read <long> back; what had it been <long> previously;"
        " which {unit} did we have <long> earlier; what did you say <long> before; which {unit} did we see <long>"
        " ago; what came <long> sooner; what was there <long> before it; what did she write <long> ago"
    ),
}
SOUGHT: dict[Relation, tuple[str, ...]] = {
    "after": phrases(
        "Which {unit} do we have <long> after {start}; What is <long> after {start}; What do we call the {unit}"
        " <long> after {start}; Who knows what comes <long> past {start}; Do you know the {unit} <long> after"
        " {start}; What will it be <long> from {start}; When <long> have passed since {start}, what is it; After"
        " <long> from {start}, where are we; What does one get by adding <long> to {start}; What do <long> more than"
        " {start} make"
    ),
    "before": phrases(
        "Which {unit} did we have <long> before {start}; What was <long> before {start}; What do we call the {unit}"
        " <long> before {start}; Who knows what came <long> ahead of {start}; Do you know the {unit} <long> before"
        " {start}; What had it been <long> back from {start}; When <long> were to pass until {start}, what was it;"
        " Before the <long> that led to {start}, where were we; What does one get by taking <long> from {start};"
        " What do <long> less than {start} make"
    ),
}
REPLIES = (
    *(" It is", " Answer:", " We have", " That is", " The answer:", " I say", " A:", " Of course", " It was"),
    *(" Surely", " We were at", " One says", " Well,", " It must be", " We get", " We had", " They had", " We see"),
    *(" It will be", " You have", " She says", " He said", " They saw", "\n", " Right:", " My answer is", " I know:"),
    " That was",
)
PLACED: dict[Relation, tuple[str, ...]] = {
    "after": phrases(
        "From {start}: <long> on; Begin: {start}. <Long> on; {Start}: <long> onwards; Start at {start}: <long>"
        " forward; {Start}, and <long> further on; {Start} is where we begin, and <long> on; First {start}, <long>"
        " after it; Here {start}, there, <long> further on; {Start} on the left, and <long> to the right; Upon"
        " {start} and <long> more"
    ),
    "before": phrases(
        "From {start}: <long> backward; End: {start}. <Long> earlier; {Start}: <long> backwards; Start at {start}:"
        " <long> back; {Start}, and <long> further back; {Start} is where we end, and <long> before it; Last"
        " {start}, <long> before it; Here {start}, there, <long> further back; {Start} on the right, and <long> to"
        " the left; Upon {start} and <long> less"
    ),
}
NAMING: dict[Relation, tuple[str, ...]] = {
    "after": phrases(
        "{Start} comes <long> before; {Start} precedes by <long>; {Start} is followed <long> later by; <Long> lie"
        " between {start} and the later; {Start} leads after <long> to; {Start} turns within <long> into; <Long>"
        " behind {start} follows; {Start} gives way <long> later to"
    ),
    "before": phrases(
        "{Start} comes <long> after; {Start} follows by <long>; {Start} was preceded <long> earlier by; <Long> lie"
        " between {start} and the earlier; {Start} came after <long> out of; {Start} was within <long> made from;"
        " <Long> in front of {start} goes; {Start} took over <long> later from"
    ),
}
PLACED_ENDS = (
    *("", ":", " is", ", we have", ", it is", ", that is", ": it is", " comes", " stands", ", and it is", " lies"),
)
