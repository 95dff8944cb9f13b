"""The words that generated tasks are made of."""

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_PLACES = """
    Lisbon Vienna Nairobi Quito Kyoto Oslo Cairo Hanoi Lima Prague Delhi Dakar Riga Izmir Perth Bergen
    Turin Leeds Accra Cusco Tunis Ghent Malaga Sofia"""
PLACES = tuple(_PLACES.split())
EVENTS = (  # each holds a second number, so that the year must be told from it
    "In {year} a bridge of {number} arches was finished in {place}.",
    "A school with {number} pupils opened in {place} in {year}.",
    "The museum of {place} bought {number} paintings in {year}.",
    "{number} ships left the port of {place} in the spring of {year}.",
    "It was {year} when the town hall of {place} burned for {number} hours.",
    "After {number} months of work, the tunnel near {place} was opened in {year}.",
    "The {number} members of the choir of {place} first sang together in {year}.",
    "In {year} the railway to {place} had {number} stations.",
)
_WORDS = """
    able acid across actor afternoon agree anchor angle animal answer apple arrow artist autumn
    balance banana barrel basket beach beard berry bicycle bird blanket board bottle branch bread breeze
    brick bridge brother brush bucket butter button cabin camera candle canyon carbon carpet castle cattle
    ceiling cellar chair cheese cherry chicken circle circus clever cloud coffee colour comet copper corner
    cotton cousin cradle crane cricket crystal curtain dagger dancer danger desert dinner doctor dragon
    drawer driver eagle early earth eleven engine evening fabric family farmer father feather fence ferry
    field finger flower forest fossil fountain friend garden garlic gentle giraffe glacier glass goose
    grammar grape grass guitar hammer harbour harvest helmet honey horse island ivory jacket jungle kettle
    kitchen ladder lantern lemon letter library lizard machine magnet marble market meadow melon memory
    metal mirror monkey morning mother mountain needle nephew number ocean office onion orange orchard
    oxygen paper parrot pebble pencil pepper pillow pilot planet pocket potato present puzzle quarter
    quiet rabbit raven ribbon river rocket saddle sailor salmon school season shadow shelter silver sister
    spider spoon spring station stone street sugar summer table teacher temple thunder ticket tiger tomato
    tower train tunnel turtle umbrella valley velvet village violin wagon walnut water weather whistle
    window winter wooden yellow zebra"""
WORDS = tuple(_WORDS.split())
