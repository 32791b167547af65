from .judgement import verdict as verdict
from .run_page import report as report
from .side_by_side import comparison as comparison
