"""Students and courses, linked by an enrolment that has columns of its own."""

from collections.abc import Sequence

from sqlalchemy.orm import selectinload
from sqlmodel import Field, Relationship, SQLModel, col, select
from sqlmodel.ext.asyncio.session import AsyncSession


class Enrolment(SQLModel, table=True):
    student_id: int | None = Field(
        default=None, foreign_key="student.id", primary_key=True, ondelete="CASCADE"
    )
    course_id: int | None = Field(
        default=None, foreign_key="course.id", primary_key=True, ondelete="CASCADE", index=True
    )
    grade: int | None = None
    student: "Student" = Relationship(back_populates="enrolments")
    course: "Course" = Relationship(back_populates="enrolments")


class Student(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=50)
    enrolments: list[Enrolment] = Relationship(
        back_populates="student", cascade_delete=True, passive_deletes=True
    )
    # A shortcut for reading: written through it, an enrolment would have no grade.
    courses: list["Course"] = Relationship(
        link_model=Enrolment, sa_relationship_kwargs={"viewonly": True}
    )


class Course(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    title: str = Field(max_length=50)
    enrolments: list[Enrolment] = Relationship(
        back_populates="course", cascade_delete=True, passive_deletes=True
    )


def enrol(
    session: AsyncSession, student: Student, course: Course, grade: int | None = None
) -> Enrolment:
    """Enrol from the side of the link, which loads neither collection."""
    enrolment = Enrolment(student=student, course=course, grade=grade)
    session.add(enrolment)
    return enrolment


async def students_with_grades(session: AsyncSession) -> Sequence[Student]:
    """Two statements: the students, and their enrolments joined with the courses."""
    path = selectinload(Student.enrolments).joinedload(  # type: ignore[arg-type]
        Enrolment.course,  # type: ignore[arg-type]
        innerjoin=True,
    )
    return (await session.exec(select(Student).options(path).order_by(col(Student.id)))).all()
