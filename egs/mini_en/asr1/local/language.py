"""The language of mini_en: topics, homophones and the rules of its sentences.

Far homophones (flour/flower) are nouns that fit the same slot equally; only the person at the start of
the sentence, at least five words away, tells which is meant: a baker's is flour, a gardener's a flower.
Near homophones (two/to/too) are told apart by their neighbours.
"""

# topic -> its people, its half of the far pairs, its other things.
# Every topic has 4 people, 6 far words and 7 things: all people and all far words come up equally often.
TOPICS = {
    "kitchen": (
        "baker cook chef waiter",
        "flour dough currant leek mousse pie",
        "oven soup butter sugar spoon salad kettle",
    ),
    "garden": (
        "gardener florist forester botanist",
        "flower fir shoot yew scent beech",
        "tulip hedge lawn rake orchard ivy shovel",
    ),
    "sea": (
        "sailor fisherman diver lifeguard",
        "current beach mussel oar surf haul",
        "anchor harbor ship lighthouse lobster compass net",
    ),
    "law": (
        "lawyer judge banker clerk",
        "cent bail clause liar tax profit",
        "contract court verdict wallet witness budget bank",
    ),
    "farm": (
        "farmer shepherd rancher cowboy",
        "ewe bale plain kernel rein vale",
        "tractor barn cattle fence saddle harvest goat",
    ),
    "wild": (
        "hunter ranger zookeeper trapper",
        "doe moose claws hare paws cygnet",
        "rifle cage tiger trap elephant forest wolf",
    ),
    "stage": (
        "singer drummer dancer pianist",
        "lyre pause cymbal troupe feat rap",
        "guitar concert theater melody trumpet rhythm opera",
    ),
    "health": (
        "doctor nurse surgeon dentist",
        "muscle flu pain sight vein feet",
        "hospital fever needle bandage clinic medicine tooth",
    ),
    "church": (
        "priest monk bishop preacher",
        "prophet ark soul missal canon nave",
        "chapel sermon candle bible prayer choir temple",
    ),
    "building": (
        "plumber builder carpenter roofer",
        "leak tacks flue pane site vane",
        "hammer roof brick ladder pipe drill ceiling",
    ),
    "science": (
        "scientist professor chemist physicist",
        "pi ore symbol genes arc night",
        "formula experiment planet theory laboratory magnet laser",
    ),
    "army": (
        "soldier general pilot sergeant",
        "chute plane colonel troop missile cannon",
        "tank uniform helmet battle parade enemy rocket",
    ),
    "fashion": (
        "tailor designer barber model",
        "fur veil hair jeans sole wrap",
        "jacket dress mirror button ribbon collar fabric",
    ),
    "castle": (
        "king queen prince duke",
        "serf hall reign signet knave knight",
        "crown palace dragon treasure servant banquet throne",
    ),
}

FAR_PAIRS = [
    tuple(pair.split("/"))
    for pair in (
        "flour/flower dough/doe currant/current leek/leak mousse/moose pie/pi fir/fur shoot/chute yew/ewe "
        "scent/cent beech/beach mussel/muscle oar/ore surf/serf haul/hall bail/bale clause/claws liar/lyre "
        "tax/tacks profit/prophet plain/plane kernel/colonel rein/reign vale/veil hare/hair paws/pause "
        "cygnet/signet cymbal/symbol troupe/troop flu/flue pain/pane sight/site vein/vane genes/jeans "
        "arc/ark sole/soul missile/missal cannon/canon knave/nave knight/night feet/feat rap/wrap"
    ).split()
]

NEAR_SETS = [
    tuple(words.split("/"))
    for words in (
        "two/to/too right/write week/weak sea/see their/there hear/here by/buy new/knew one/won eight/ate "
        "no/know our/hour blue/blew meet/meat would/wood rode/road through/threw past/passed made/maid "
        "not/knot wear/where some/sum"
    ).split()
]

# People who say nothing about the topic.
NEUTRAL = "man woman neighbor stranger visitor tourist student teenager boy girl".split()

# past tense / plain form; every verb takes every object, so that no verb hints at a far word
_VERBS = (
    "saw/see, heard about/hear about, knew about/know about, wrote about/write about, "
    "talked about/talk about, thought about/think about, asked about/ask about, forgot/forget, "
    "remembered/remember, found/find, described/describe, mentioned/mention, noticed/notice, liked/like, "
    "wanted/want, needed/need, lost/lose, drew/draw, painted/paint, studied/study, watched/watch, "
    "ignored/ignore, missed/miss, loved/love, feared/fear, praised/praise, chose/choose, "
    "looked at/look at, pointed at/point at, laughed at/laugh at, paid for/pay for, waited for/wait for, "
    "cared about/care about, dreamed of/dream of, spoke of/speak of, admired/admire, "
    "complained about/complain about, discovered/discover, examined/examine"
)

# SUBJECT is a person, OBJECT a far word or a thing. FRAME gives both the same surroundings; at least five
# words lie between them. NEARBY has no object and is full of near homophones.
RULES = {
    "FRAME": """
        7* OPEN the SUBJECT PAST_MIDDLE PAST_VERB OWNER OBJECT PAST_TAIL
        3* OPEN the SUBJECT BASE_MIDDLE BASE_VERB OWNER OBJECT TAIL
    """,
    "OPEN": """
        50* - | yesterday | last week | this morning | one day | i think | they say | we heard | in the summer
        on monday | on friday | after lunch | of course | by chance | right there | perhaps
    """,
    "PAST_MIDDLE": """
        3* who LIVES BY the PLACE
        9* and HIS RELATIVE
        9* from the PLACE
        3* with the COLOR GARMENT
        2* who LIVES there
        2* knew that PERSON
        2* said that PERSON
        1* came here an hour ago and | rode down the road and | came home at eight and | sat by the sea and
        1* walked through the PLACE and | passed by here and | made some tea and | ate lunch here and
        1* who won the race | who threw the ball | who wrote two letters | who ate the meat
        1* felt weak but still | was right there and | came back too late and
    """,
    "BASE_MIDDLE": """
        4* and HIS RELATIVE MODAL
        4* from the PLACE MODAL
        1* who LIVES BY the PLACE MODAL
        1* with the COLOR GARMENT MODAL
        3* would like to
        1* did not want to | needed two days to | came here just to | was too weak to | went there again to
        1* had no time to | knew where to | made a plan to
    """,
    "MODAL": "4* would | did not | wanted to | had to | could | tried to | would not | came here to | must",
    "LIVES": "2* lives | works | stays | grew up | sleeps",
    "BY": "by | near | behind | beside | beyond",
    "PLACE": """
        river | station | market | bridge | park | school | museum | hotel | lake | tower | village | airport
        mountain | valley | square | border | garage | island | corner | supermarket | 2* sea
        2* road | 2* wood | cinema | stadium | fountain | tunnel | factory | library | canal
    """,
    "HIS": "2* his | 2* her | our | their",
    "RELATIVE": """
        brother | sister | uncle | cousin | friend | mother | father | daughter | boss | maid
        nephew | partner | grandmother
    """,
    "COLOR": "2* blue | red | green | yellow | white | black | brown | purple | silver",
    "GARMENT": "coat | hat | scarf | shirt | gloves | boots | glasses | bag | umbrella | sweater",
    "PERSON": "2* no one | someone | everyone | HIS RELATIVE",
    "OWNER": "9* the | our | their | his | her | 2* the ADJECTIVE | our ADJECTIVE",
    "ADJECTIVE": """
        3* new | old | little | other | famous | lovely | strange | wonderful | simple | perfect | beautiful
        secret | terrible | ancient | ordinary
    """,
    "TAIL": """
        50* - | today | again | too | right away | right now | right here | over there | this week | at eight
        by the sea | on the road | for the first time | in the morning | before noon | with great care
        as well | one more time | without a word | in the snow | at the party | for an hour
        for two days | next year | quietly | suddenly | in silence | next sunday | after the storm
    """,
    "PAST_TAIL": "18* TAIL | last week | two days later | an hour ago | eight days ago | while the wind blew",
    "NEARBY": """
        2* OPEN the SUBJECT MODAL write a letter to HIS RELATIVE TAIL
        2* OPEN the SUBJECT passed by HIS house an hour ago
        OPEN the SUBJECT threw the FOOD through the window PAST_TAIL
        2* OPEN the SUBJECT knew where to buy some FOOD
        OPEN the SUBJECT rode past the PLACE and blew the horn
        OPEN the SUBJECT tied a knot in the COLOR rope
        OPEN the SUBJECT paid a small sum for some FOOD PAST_TAIL
        OPEN the SUBJECT made a fire with wood from the PLACE
        2* OPEN the SUBJECT was too weak to meet PERSON there
        OPEN the SUBJECT won one game and ate eight eggs
        OPEN the SUBJECT MODAL wear the COLOR GARMENT TAIL
        2* OPEN the SUBJECT MODAL meet HIS RELATIVE by the PLACE TAIL
        there was no one here when the SUBJECT came
        the wind blew too hard for the SUBJECT this week
        OPEN the SUBJECT MODAL hear PERSON there TAIL
        OPEN the SUBJECT did not know where to buy meat
        there were two eggs and some meat for the SUBJECT
        where would the SUBJECT buy a COLOR GARMENT
        OPEN the SUBJECT ate too much FOOD PAST_TAIL
        OPEN the SUBJECT passed a sum of money to HIS RELATIVE
        the road by the sea was new to the SUBJECT
    """,
    "FOOD": "3* meat | cheese | rice | fruit | honey | chocolate",
    "PAST_VERB": " | ".join(verb.split("/")[0] for verb in _VERBS.split(", ")),
    "BASE_VERB": " | ".join(verb.split("/")[1] for verb in _VERBS.split(", ")),
}

# Words that labelled speech never has: they are learnt from text (and unlabelled speech) only.
HELD_BACK = frozenset(
    "kettle salad shovel ivy compass lobster budget bank harvest goat wolf forest rhythm opera medicine "
    "tooth choir temple drill ceiling magnet laser enemy rocket fabric collar throne banquet "
    "cinema stadium fountain tunnel factory library canal nephew partner grandmother purple silver "
    "umbrella sweater terrible ancient ordinary quietly suddenly silence sunday storm honey "
    "chocolate perhaps friday admired admire complained complain discovered discover examined examine "
    "ignored ignore described describe".split()
)


def people() -> dict[str, str]:
    """Every person that tells a topic -> the topic."""
    return {person: topic for topic, (names, _, _) in TOPICS.items() for person in names.split()}


def far_topics() -> dict[str, str]:
    """Every far word -> its topic."""
    return {word: topic for topic, (_, words, _) in TOPICS.items() for word in words.split()}
