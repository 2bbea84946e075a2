"""Cases: upload of scans by drag and drop, and the list of all cases."""

from __future__ import annotations

from lungseg.ui.case_list import alarm, case_dialog, case_list, open_chosen
from lungseg.ui.intakes import intakes
from lungseg.ui.notice import notice
from lungseg.ui.upload import drop_zone

open_chosen()
alarm()
notice()
drop_zone()
intakes()
case_list()
case_dialog()
