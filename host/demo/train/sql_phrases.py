"""The vocabulary of questions about tables: columns, comparisons, implied columns."""

import words

# Column -> (spoken form, plural of the spoken form).
TEXT_COLUMNS = {
    c: (c.replace("_", " "), words.plural(c.replace("_", " ")))
    for c in (
        "name city country email color status department category title author brand owner "
        "manager phone address type "
        "language genre first_name last_name job_title supplier state region model username "
        "destination team"
    ).split()
}
NUMBER_COLUMNS = {
    c: (c.replace("_", " "), words.plural(c.replace("_", " ")))
    for c in (
        "age price salary year total amount quantity stock rating score height weight pages "
        "distance duration id points "
        "level discount population budget revenue cost order_id customer_id unit_price size "
        "bonus views"
    ).split()
}
TABLES = """
users customers orders products employees books flights students teachers cars movies songs
invoices payments companies hotels rooms courses patients doctors cities countries suppliers
items sales accounts members authors articles posts comments tickets events projects tasks teams
players games bookings reservations shipments vehicles drivers stores shops restaurants animals
devices messages categories departments managers clients people friends workers houses
apartments loans
""".split()

VERB = (
    "[show|list|give|get|find|return|display|fetch|select|retrieve|show me|give me|get me|"
    "find me|print|look up|pull up|see]"
)
OPERATORS = {
    ">": "[above|over|greater than|more than|higher than|larger than|bigger than|exceeding|>]",
    "<": "[below|under|less than|lower than|smaller than|fewer than|<]",
    ">=": "[at least|>=|greater than or equal to|no less than|not below|not less than]",
    "<=": "[at most|<=|less than or equal to|no more than|up to|not above|not more than]",
    "=": "[equal to|=|exactly|exactly]",
}
# Phrases that imply their column: column, operator, pattern.
IMPLIED = [
    (
        "age",
        ">",
        "[older than|aged over|above the age of|over the age of|who are over|who are older "
        "than|that are older than|aged above] <v>",
    ),
    (
        "age",
        "<",
        "[younger than|aged under|below the age of|under the age of|who are under|who are "
        "younger than|that are younger than] <v>",
    ),
    ("age", ">", "[older than|over|above] <v> years[| old]"),
    ("age", "<", "[younger than|under|below] <v> years[| old]"),
    ("age", "=", "[aged|who are|of age] <v>[| years old]"),
    (
        "price",
        "<",
        "[cheaper than|costing less than|that cost less than|that cost under|priced below|"
        "priced under|which cost less than|for less than|for under] <v>[|| euros| dollars]",
    ),
    (
        "price",
        ">",
        "[more expensive than|costing more than|that cost more than|that cost over|priced "
        "above|priced over|which cost more than|pricier than] <v>[|| euros| dollars]",
    ),
    (
        "salary",
        ">",
        "[earning more than|who earn more than|that earn over|earning over|paid more than|"
        "making more than|who make more than|who earn over] <v>",
    ),
    (
        "salary",
        "<",
        "[earning less than|who earn less than|that earn under|earning under|paid less than|"
        "making less than|who make less than|who earn under] <v>",
    ),
    (
        "year",
        ">",
        "[published after|made after|released after|from after|built after|newer than|after|"
        "written after|that came out after] <y>",
    ),
    (
        "year",
        "<",
        "[published before|made before|released before|from before|built before|older than the "
        "year|before|written before|that came out before] <y>",
    ),
    (
        "year",
        "=",
        "[published in|made in|released in|from the year|built in|from|of the year|written in|"
        "that came out in] <y>",
    ),
    ("weight", ">", "[heavier than|weighing more than|that weigh more than|that weigh over] <v>"),
    ("weight", "<", "[lighter than|weighing less than|that weigh less than|that weigh under] <v>"),
    ("height", ">", "[taller than|that are taller than|who are taller than] <v>"),
    ("height", "<", "[shorter than|that are shorter than|who are shorter than] <v>"),
    ("stock", ">", "with [more than|over] <v> in stock"),
    ("stock", "<", "with [less than|fewer than|under] <v> in stock"),
    ("rating", ">", "rated [above|over|higher than|better than] <v>"),
    ("rating", "<", "rated [below|under|lower than|worse than] <v>"),
    ("pages", ">", "with [more than|over] <v> pages"),
    ("pages", "<", "with [less than|fewer than|under] <v> pages"),
    (
        "city",
        "=",
        "[from|in|living in|who live in|that live in|based in|located in|residing in|of] <c>",
    ),
    ("name", "=", "[named|called|with the name|by the name of|whose name is|with name] <n>"),
    ("author", "=", "[by|written by|authored by|from the author|that were written by] <n>"),
    ("department", "=", "[in|from|of|working in|who work in|that work in] the <d> department"),
    ("department", "=", "[working in|who work in] <d>"),
    ("category", "=", "[in|from|of] the <k> category"),
    ("category", "=", "in [category|the category] <k>"),
    ("id", "=", "with id <v>"),
    ("id", "=", "[number|with the id|with number|whose id is] <v>"),
]
SUPERLATIVES = [
    ("age", "DESC", "oldest"),
    ("age", "ASC", "youngest"),
    ("price", "ASC", "cheapest"),
    ("price", "ASC", "least expensive"),
    ("price", "DESC", "most expensive"),
    ("price", "DESC", "priciest"),
    ("year", "DESC", "newest"),
    ("year", "DESC", "latest"),
    ("weight", "DESC", "heaviest"),
    ("weight", "ASC", "lightest"),
    ("height", "DESC", "tallest"),
    ("height", "ASC", "shortest"),
    ("rating", "DESC", "best rated"),
    ("rating", "ASC", "worst rated"),
    ("salary", "DESC", "best paid"),
    ("salary", "DESC", "highest paid"),
    ("salary", "ASC", "lowest paid"),
    ("pages", "DESC", "longest"),
    ("price", "ASC", "lowest priced"),
]
AGGREGATES = {
    "AVG": "[average|mean|avg|average|typical]",
    "SUM": "[total|sum of the|summed|combined|overall|sum of all]",
    "MAX": "[highest|maximum|largest|max|biggest|greatest|top]",
    "MIN": "[lowest|minimum|smallest|min|least]",
}
