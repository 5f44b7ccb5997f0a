"""The rules of the ledger, a table per kind of event: most rows post nothing, and say why.

Behind the bar stands `posted`; what is known of the hold: `unknown`, `open`, `committed`, `released`, `expired`; what
can't be counted: `id`, `many`, `twice`, `name`, `currency`, `amount`, `window`; `unmoved` where no amount moves; `told`
where an event only tells. Where several would do, rows go down by precedence. Rows are read by ledger_tables.py.
"""

from __future__ import annotations

import pytest

from tests.support.ledger_tables import Desk

V4 = "f47ac10b-58cc-4372-a567-0e02b2c3d479"
PLACED = f"""
PLACED     {V4} legs=33 a=1 a=1                | id
PLACED     no-id a=1                           | id
PLACED     h1   legs=33                        | many
PLACED     h1   day=1 day=2                    | twice
PLACED     h1   a/b:x@-1=-1 a/b:x@-1=-1        | twice
PLACED     h1   a/b:x@-1=-1                    | name
PLACED     h1   day:x@-1=-1                    | currency
PLACED     h1   day:USDT=1                     | currency
PLACED     h1   day@-1=-1                      | amount
PLACED     h1   day=+1                         | amount
PLACED     h1   day@-1=1                       | window
PLACED     h1   day=1 month=-1                 | amount        # one leg that can't be counted is enough
PLACED     h1   day@-1=1 a/b=1                 | window        # legs are looked at in their order
account    day/available                       0 0 0 0
PLACED     h1   day=100 month@1=100            | posted
PLACED     h1   day=100 month@1=100            | open          # produced twice
PLACED     h1   day=7                          | open          # another body
PLACED     h1   day=-1                         | amount        # can't be counted, before what is known of the hold
account    day/available                       100 0 0 0
account    day/held                            0 0 100 0
account    month/available                     100 0 0 0
PLACED     h2                                  | unmoved
PLACED     h2   day=1                          | open          # without limits it stands all the same
PLACED     h3   day=0                          | unmoved
PLACED     h4   day=0 month=5                  | posted
PLACED     h5   day=5 day:EUR=5 day@1=5        | posted        # three counters of one limit
PLACED     h6   day=+0                         | posted        # the most there may be
PLACED     h7   legs=32                        | posted
account    day/available:EUR                   5 0 0 0
RELEASED   h1                                  | posted
PLACED     h1   day=100                        | released
COMMITTED  h4   month=5                        | posted
PLACED     h4   day=100                        | committed
EXPIRED    h5                                  | posted
PLACED     h5   day=100                        | expired
"""
EXTENDED = f"""
EXTENDED   {V4} day=9                          | id
EXTENDED   h1   day=9                          | unknown
PLACED     h1   day=5 month=5                  | posted
EXTENDED   {V4} day=-1                         | id
EXTENDED   h1   day=9 day=9                    | twice
EXTENDED   h1   day=+1                         | amount
EXTENDED   h1   day=9 month=-1                 | amount        # not the leg that could be counted either
EXTENDED   h1   day=5 month=5                  | unmoved
EXTENDED   h1   day=4 month=0                  | unmoved       # never lowered
EXTENDED   h1                                  | unmoved
EXTENDED   h1   week=9                         | unmoved       # no leg of the hold
EXTENDED   h1   day:EUR=9 day@1=9              | unmoved       # other counters of its limit
account    day/available                       5 0 0 0
EXTENDED   h1   day=9 month=4                  | posted
EXTENDED   h1   day=9 month=4                  | unmoved       # produced twice
EXTENDED   h1   day=8                          | unmoved       # an older one, late
account    day/available                       9 0 0 0
account    month/available                     5 0 0 0
EXTENDED   h1   month=8 week=1                 | posted
COMMITTED  h1   day=9 month=8                  | posted
EXTENDED   h1   day=20                         | committed
EXTENDED   h1   day=-1                         | amount
account    day/spent                           0 0 0 9
account    month/spent                         0 0 0 8
account    week/available                      0 0 0 0
PLACED     h2   day=5                          | posted
EXPIRED    h2   day=5                          | posted
EXTENDED   h2   day=20                         | expired
PLACED     h3   day=5                          | posted
RELEASED   h3                                  | posted
EXTENDED   h3   day=20                         | released
PLACED     h4   day=0                          | unmoved
EXTENDED   h4   day=3                          | posted        # from nothing
RELEASED   h4                                  | posted
PLACED     h5                                  | unmoved
EXTENDED   h5   day=3                          | unmoved       # a hold without limits stays without
account    day/held                            0 14 0 14
"""
COMMITTED = f"""
COMMITTED  {V4} day=1                          | id
COMMITTED  h1   legs=33                        | many
COMMITTED  h1   day=1                          | unknown
COMMITTED  h1                                  | unknown
PLACED     h1   day=100 month=100              | posted
COMMITTED  h1   day=30 day=30                  | twice
COMMITTED  h1   day=30 month=-1                | amount
COMMITTED  h1   day=+1                         | amount
COMMITTED  h1   a/b=1                          | name
account    day/available                       100 0 0 0
COMMITTED  h1   day=30 month=100               | posted
COMMITTED  h1   day=30 month=100               | committed     # produced twice
COMMITTED  h1   day=40                         | committed     # another charge
COMMITTED  h1   day=-1                         | amount
EXPIRED    h1   day=100                        | committed
RELEASED   h1                                  | committed
account    day/available                       0 30 0 0
account    day/held                            0 30 0 30
account    day/spent                           0 0 0 30
account    month/spent                         0 0 0 100
PLACED     h2   day=100                        | posted
COMMITTED  h2   day=130                        | posted        # never cut
account    day/overage                         0 30 0 0
account    day/spent                           0 0 0 160
PLACED     h3   day=100                        | posted
COMMITTED  h3                                  | posted        # no charge on a leg frees it
PLACED     h4   day=0                          | unmoved
COMMITTED  h4   day=0                          | unmoved
COMMITTED  h4   day=7                          | committed     # it is over all the same
PLACED     h5   day=0                          | unmoved
COMMITTED  h5   day=7                          | posted        # all of it above the hold
PLACED     h6   day=5                          | posted
COMMITTED  h6   day=5 week=2 day:EUR=3         | posted        # on counters that it held nothing of
account    day/overage                         0 37 0 0
account    week/overage                        0 2 0 0
account    day/spent:EUR                       0 0 0 3
PLACED     h7                                  | unmoved
COMMITTED  h7                                  | unmoved
COMMITTED  h7   day=1                          | committed
"""
RELEASED = f"""
RELEASED   {V4} day=1                          | id
RELEASED   h1   day=1                          | unknown
PLACED     h1   day=100 month=50               | posted
RELEASED   h1   day=1 day=1                    | twice
RELEASED   h1   day=-1                         | amount        # and the hold stands
account    day/available                       100 0 0 0
RELEASED   h1   day=1                          | posted        # the whole hold, whatever its legs say
RELEASED   h1   day=100 month=50               | released      # produced twice
COMMITTED  h1   day=100                        | released
EXPIRED    h1   day=100                        | released
RELEASED   h1   day=-1                         | amount
account    day/available                       0 0 0 0
account    month/available                     0 0 0 0
PLACED     h2                                  | unmoved
RELEASED   h2                                  | unmoved
RELEASED   h2                                  | released
"""
EXPIRED = f"""
EXPIRED    {V4} day=1                          | id
EXPIRED    h1   day=1                          | unknown
PLACED     h1   day=100                        | posted
EXPIRED    h1   day=100 day=100                | twice
EXPIRED    h1   day=+1                         | amount
EXPIRED    h1   day=40                         | posted
EXPIRED    h1   day=40                         | expired       # two reapers
EXPIRED    h1   day=100                        | expired       # by another policy
RELEASED   h1                                  | expired
EXPIRED    h1   day=-1                         | amount
account    day/available                       0 40 0 0
account    day/spent                           0 0 0 40
PLACED     h2   day=100                        | posted
EXPIRED    h2   day=0                          | posted        # by the policy that charges nothing
account    day/spent                           0 0 0 40
PLACED     h3   day=0                          | unmoved
EXPIRED    h3   day=0                          | unmoved
EXPIRED    h3   day=9                          | expired
PLACED     h4   day=1                          | posted
EXTENDED   h4   day=2                          | posted
EXPIRED    h4   day=1                          | posted        # decided before the extension came in
account    day/held                            0 41 0 41
account    day/spent                           0 0 0 41
"""
LATE = """
PLACED     h1   day=100 month=100              | posted
EXPIRED    h1   day=100 month=100              | posted
COMMITTED  h1   day=-1                         | amount
COMMITTED  h1   day=30 day=30                  | twice
account    day/spent                           0 0 0 100
COMMITTED  h1   day=30 month=130               | posted        # the difference, on each
COMMITTED  h1   day=30 month=130               | committed     # once
EXPIRED    h1   day=100                        | committed
account    day/available                       0 100 0 70
account    day/spent                           0 70 0 100
account    month/overage                       0 30 0 0
account    month/spent                         0 0 0 130
PLACED     h2   day=5                          | posted
EXPIRED    h2   day=5                          | posted
COMMITTED  h2   day=5                          | unmoved       # the estimate was right
COMMITTED  h2   day=6                          | committed
PLACED     h3   week=5                         | posted
EXPIRED    h3   week=5                         | posted
COMMITTED  h3                                  | posted        # it was charged nothing
account    week/available                      0 5 0 5
PLACED     h4   late=5                         | posted
EXPIRED    h4   late=0                         | posted
COMMITTED  h4   late=4 other=2                 | posted        # nothing was estimated, and nothing held of the other
account    late/available                      0 4 0 0
account    other/overage                       0 2 0 0
PLACED     h5   over=5                         | posted
EXPIRED    h5   over=8                         | posted        # an estimate above the hold
COMMITTED  h5   over=2                         | posted
account    over/available                      0 5 0 3
account    over/overage                        0 3 0 3
account    over/spent                          0 6 0 8
PLACED     h6   old=5                          | posted
EXPIRED    h6   old=5                          | posted
PLACED     l1   old=1                          | posted
RELEASED   l1                                  | posted
COMMITTED  h6   old=1                          | unknown       # nobody remembers it after so many hours
account    old/spent                           0 0 0 5
"""
TOLD = f"""
OVERAGE    h1   day=30                         | told
REFUSED    h1   day=30                         | told
OVERAGE    {V4} day=-1 day=-1                  | told          # they may say what they like
REFUSED    no-id legs=33                       | told
COMMITTED  h1   day=1                          | unknown       # and nobody knows the hold by them
PLACED     h1   day=100                        | posted
OVERAGE    h1   day=30                         | told
REFUSED    h1   day=30                         | told
COMMITTED  h1   day=100                        | posted
OVERAGE    h1   day=30                         | told
account    day/spent                           0 0 0 100
account    day/overage                         0 0 0 0
"""
COSTS = """
CHARGE      0:USD   0:USD                      | unmoved
CORRECTION  0:USD   0:USD                      | unmoved
CHARGE      0:USD   0:EUR                      | unmoved
CHARGE      0:USD   9:USD                      | unmoved       # in one currency the charge is what counts
account     expense/key/-                      0 0 0 0
CHARGE      18:USD  18:USD                     | posted
account     expense/key/-                      0 18 0 0
account     payable/p                          0 0 0 18
CORRECTION  -8:USD  -8:USD                     | posted        # the other way
account     expense/key/-                      0 18 0 8
CORRECTION  2:USD   2:USD                      | posted        # dearer than it was charged
account     expense/key/-                      0 20 0 8
CHARGE      20:USD  18:EUR                     | posted
account     clearing/EUR/USD                   0 0 0 20
account     clearing/EUR/USD:EUR               0 18 0 0
account     payable/p:EUR                      0 0 0 18
CHARGE      0:USD   1:EUR                      | posted        # too little for a nano-unit of the other currency
CHARGE      1:USD   0:EUR                      | posted
CORRECTION  -20:USD -18:EUR                    | posted
account     clearing/EUR/USD                   0 20 0 21
account     clearing/EUR/USD:EUR               0 19 0 18
"""
TABLES = {
    "PLACED": PLACED,
    "EXTENDED": EXTENDED,
    "COMMITTED": COMMITTED,
    "RELEASED": RELEASED,
    "EXPIRED": EXPIRED,
    "a late COMMITTED": LATE,
    "OVERAGE and REFUSED": TOLD,
    "costs": COSTS,
}


@pytest.mark.parametrize("name", TABLES)
def test_rules_of_the_ledger(name: str) -> None:
    """Each row comes true; then debits equal credits, pendings are resolved whole, and the counters say the same."""
    Desk().check(TABLES[name])
